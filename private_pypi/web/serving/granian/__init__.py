"""The HTTP server with granian: TLS and HTTP/2, and the protocol is parsed in Rust.

An extra installs granian. It gives the same answers as the default engine, because it uses the same
application, gate, pools of threads and time limits; `docs/engines.md` lists the differences.

granian reads and writes the sockets in threads of its own, and hands each request over in a further
one. What is at hand is answered there. For all other requests, a coroutine runs in the *loop*,
which is asyncio's, in the thread that called `serve`. As in the default engine, the loop never
opens, reads or writes a file, and *workers* are the threads of the pools.

- `engine`: start and end, the sockets to listen on, new certificates
- `connections`: which clients take too long, and whose connections are closed when there are too
  many. granian has no limits for this, so they are found among the open files of the process.
- `exchange`: one request and its answer
- `head`: what the application gets to know of a request
- `body`: the body of a request, as it arrives
- `responding`: the call of the application, and what is sent of its answer
- `piped`: long answers. granian would keep all of an answer that is streamed to it in memory, so it
  reads long answers from a pipe, as if they were files; then it reads only what the client takes.
- `certificates`: TLS
"""
