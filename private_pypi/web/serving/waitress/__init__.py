"""The HTTP server with waitress, with a class of our own for connections.

waitress by itself saves the whole body of a request before it calls the application, and sends
`100 Continue` without asking anybody. This package changes that:

- As soon as the head of a request with a body has arrived, a worker thread asks the gate whether
  to receive the body. Nothing more is read from that connection meanwhile.
- A form goes from the socket to a `FormReceiver` in a worker thread, and is read no faster than
  that thread writes it to disk.
- If the answer is ready before the body has ended, the server sends it, closes its own half of the
  connection, and drops what still arrives for a while. A client that reads only after it has
  written then gets the answer, and not a reset.
- A request is refused if programs could disagree on where it ends.

The *loop* is one thread. It owns the sockets and the state of the connections, and parses requests;
it never opens, reads or writes a file. *Workers* are the threads of the pools. To tell the loop
something, a worker gives a function to the trigger of the server, and the loop calls it.

- `engine`: start and end, the sockets to listen on, new connections
- `channel`: one connection
- `messages`: one request and its answer, in the form that waitress wants
- `waiting`: requests that wait without a thread, and files that still arrive
- `framing`: where a request ends
"""
