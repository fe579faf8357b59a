"""The HTTP server: an engine that receives requests and sends answers.

There are two engines, and `engines` chooses one: waitress, in the package `waitress`, and granian,
in the package `granian`. Each package describes itself. This is the only package that knows either
of them, and it does not know what a repository is. Both engines do the following:

- They ask the *gate* about a request with a body before they receive the body, and receive a form
  no faster than it is written to disk (`gate`, `receiving`, `form_body`).
- Each kind of work has a pool of threads, so that quick answers do not wait for slow ones. Each
  pool divides its threads between the repositories (`pools`).
- A request whose answer is not ready waits without a thread, and a file that is still arriving
  from a storage is sent as it arrives (`growing`).
- Clients have to send and receive at a lowest rate. When all connections are taken, slow and idle
  clients lose theirs (`timeouts`).
- Several processes can serve on the same sockets (`parent`), and divide the connections (`peers`).
  Each of these *worker processes* has a loop and pools of its own.
- They call the same functions of the application (`running`), stop in the same way (`stopping`),
  take the same options (`options`), read the same from the head of a request (`heads`), and refuse
  it with the same answers (`refusals`).

Read `gate` (the types) first, then the `engine` of one of the packages (start and end).
"""

from __future__ import annotations

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
from private_pypi.web.serving.options import option_names
from private_pypi.web.serving.peers import ConnectionCounts, Peers
from private_pypi.web.serving.stopping import Stop
from private_pypi.web.serving.waitress.engine import open_listeners, serve

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
