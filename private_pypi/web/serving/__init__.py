"""waitress with a channel of our own: a gate before every body, forms received while they arrive,
and an end that cuts nobody off. The only package that knows waitress; it knows no repository.

As it is, waitress calls the application only after it has spooled the whole body, and says
`100 Continue` before anybody was asked. Here

- the *gate* decides, in a worker thread, as soon as the head of a request with a body is there;
  nothing more is read from that connection meanwhile,
- a form goes from the socket to a `FormReceiver` in another thread, with reading as fast as that
  thread writes,
- an answer that comes before the body has ended is followed by a half-close, and the rest is
  dropped for a while, so that clients which read only after writing see the answer and no reset,
- pools of threads keep apart what answers at once and what waits for others.

Who does what: the loop (one thread) owns the sockets, the parsing and the state of a channel; it
never opens, reads or writes a file. What a worker has to tell the loop goes through the trigger of
the server, which runs a callable in the loop's thread.

Read `gate` (what may be decided) and `engine` (start and end) first, then `channel`.
"""

from __future__ import annotations

from private_pypi.web.serving.engine import Stop, option_names, serve
from private_pypi.web.serving.gate import (
    CLIENT_WENT,
    REQUEST_ID,
    Answer,
    AtOnce,
    Exchange,
    Gate,
    Load,
    PassOn,
    ReceiveForm,
    Refuse,
    RequestHead,
    Verdict,
    Watcher,
)

__all__ = [
    "CLIENT_WENT",
    "REQUEST_ID",
    "Answer",
    "AtOnce",
    "Exchange",
    "Gate",
    "Load",
    "PassOn",
    "ReceiveForm",
    "Refuse",
    "RequestHead",
    "Stop",
    "Verdict",
    "Watcher",
    "option_names",
    "serve",
]
