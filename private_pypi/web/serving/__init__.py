"""The HTTP server: an engine that receives requests and sends answers.

There are two engines (`engines` chooses one): waitress with a class of our own for connections,
which is described here, and granian in the package `granian`, which describes itself. This is the
only package that knows either of them, and it does not know what a repository is.

waitress by itself saves the whole body of a request before it calls the application, and sends
`100 Continue` without asking anybody. This package changes that:

- As soon as the head of a request with a body has arrived, a worker thread asks the *gate* whether
  to receive the body. Nothing more is read from that connection meanwhile.
- A form goes from the socket to a `FormReceiver` in a worker thread, and is read no faster than
  that thread writes it to disk.
- If the answer is ready before the body has ended, the server sends it, closes its own half of the
  connection, and drops what still arrives for a while. A client that reads only after it has
  written then gets the answer, and not a reset.
- Each kind of work has a pool of threads, so that quick answers do not wait for slow ones. Each
  pool divides its threads between the repositories.
- A request whose answer is not ready waits without a thread, and a file that is still arriving
  from a storage is sent as it arrives (`growing`).
- Clients have to send and receive at a lowest rate. When all connections are taken, slow and idle
  clients lose theirs (`timeouts`).
- Several processes can serve on the same sockets (`parent`), and divide the connections (`peers`).
- A request is refused if programs could disagree on where it ends (`framing`).

The *loop* is one thread. It owns the sockets and the state of the connections, and parses requests;
it never opens, reads or writes a file. *Workers* are the threads of the pools. To tell the loop
something, a worker gives a function to the trigger of the server, and the loop calls it. A *worker
process* has a loop and pools of its own.

Read `gate` (the types) and `engine` (start and end) first, then `channel`. Both engines use
`gate`, `heads`, `refusals`, `receiving`, `form_body`, `growing`, `timeouts` and `pools`. `framing`,
`messages` and `channel` are of waitress. `parent`, `peers` and `stopping` are for any engine.
"""

from __future__ import annotations

from private_pypi.web.serving.engine import open_listeners, option_names, serve
from private_pypi.web.serving.gate import (
    CLIENT_CLOSED,
    LET_IN,
    REQUEST_ID,
    Answer,
    AtOnce,
    Exchange,
    Gate,
    Kind,
    Load,
    PassOn,
    ReceiveForm,
    RequestHead,
    RequestObserver,
    Verdict,
)
from private_pypi.web.serving.growing import WAITING, Later, Waiting
from private_pypi.web.serving.peers import ConnectionCounts, Peers
from private_pypi.web.serving.stopping import Stop

__all__ = [
    "CLIENT_CLOSED",
    "LET_IN",
    "REQUEST_ID",
    "WAITING",
    "Answer",
    "AtOnce",
    "ConnectionCounts",
    "Exchange",
    "Gate",
    "Kind",
    "Later",
    "Load",
    "PassOn",
    "Peers",
    "ReceiveForm",
    "RequestHead",
    "RequestObserver",
    "Stop",
    "Verdict",
    "Waiting",
    "open_listeners",
    "option_names",
    "serve",
]
