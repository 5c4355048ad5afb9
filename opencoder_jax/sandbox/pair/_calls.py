"""The conversation of a judge and a candidate: calls that go both ways, over one socket.

The judge calls the candidate's function. What it passes and gets may hold functions and iterators: they stay where they
are, and the other side calls them by a handle, while its own call waits. So a test's callback runs in the judge, and an
endless generator of the answer gives only what is asked for.

A message is a list. A request is ["call", handle, arguments, keywords] or ["next", handle]. Its reply is ["returned",
value, arguments changed in place], ["argument", name, …] where the value is one of the arguments itself, ["raised",
exception, …], ["ended"] of an iterator, or ["uncrossable", why].
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from opencoder_jax.sandbox.pair import _values
from opencoder_jax.sandbox.pair._frames import receive, send

_MUTABLE = (list, dict, set, bytearray)
ENTRY = 0  # the handle of the candidate's function


class PeerLost(BaseException):
    """The other side ended, or said something that is no message. No test catches it as an Exception."""


class Unjudged(BaseException):
    """A value could not cross: this says nothing about the answer."""


class Conversation:
    """One side of it.

    Attributes:
        lost, unjudged: whether PeerLost, Unjudged was raised; a test may have swallowed it.
    """

    def __init__(self, channel: int, entry: Callable[..., Any] | None, trace: Callable[[BaseException], None]):
        """Begins a conversation.

        Args:
            channel: the socket.
            entry: what the other side calls first; None for the judge.
            trace: told of exceptions that cross.
        """
        self._channel, self._trace = channel, trace
        self._given: list[Any] = [entry]  # the objects here that the other side has handles to
        self._taken: dict[int, tuple[Any, int]] = {}  # id of a stand-in -> the stand-in, its handle
        self.lost = self.unjudged = False

    # What _values.Handles asks for.

    def give(self, value: Any) -> dict[str, Any]:
        if id(value) in self._taken:
            return {"yours": self._taken[id(value)][1]}
        kind = _values.handle_kind(value)
        if not kind:
            raise _values.Uncrossable(f"a {type(value).__name__} cannot be passed between the judge and the candidate")
        self._given.append(value)
        return {kind: len(self._given) - 1}

    def take(self, kind: str, number: int) -> Any:
        if kind == "yours":
            return self._own(number)
        stand_in: Any
        if kind == "function":

            def stand_in(*arguments: Any, **keywords: Any) -> Any:
                return self.call(number, arguments, keywords)

        elif kind == "generator":
            stand_in = self._items(number)
        else:
            stand_in = chain(self._items(number))  # an iterator that is no generator
        self._taken[id(stand_in)] = stand_in, number
        return stand_in

    def _own(self, number: int) -> Any:
        if not 0 <= number < len(self._given):
            raise ValueError(f"{number} is no handle")
        return self._given[number]

    # Asking.

    def call(self, handle: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Calls a function of the other side.

        Raises:
            PeerLost, Unjudged; and what the function raised, as a class that this side knows.
        """
        whole = _by_place(arguments, keywords)
        kind, *content = self._ask(["call", handle, list(arguments), keywords])
        match kind, content:
            case "returned" | "argument" | "raised", [value, [*changed]]:
                for place, new in changed:
                    if place in whole:
                        _values.assign(whole[place], new)
                if kind == "raised":
                    error = _exception(value)
                    if isinstance(error, StopIteration):  # it would end the loop of a test that calls in `map`
                        raise RuntimeError("the answer raised StopIteration")
                    raise error
                return whole[value] if kind == "argument" and value in whole else value
        raise self._lose("the reply to a call is none")

    def _items(self, handle: int) -> Iterator[Any]:
        while True:
            match self._ask(["next", handle]):
                case ["ended"]:
                    return
                case ["returned", value, []]:
                    yield value
                case ["raised", value, []]:
                    raise _exception(value)
                case _:
                    raise self._lose("the reply to an iterator's step is none")

    def _ask(self, request: list[Any]) -> list[Any]:
        try:
            self._say(request)
        except _values.Uncrossable as error:
            raise self._not_judge(str(error)) from None
        while True:
            message = self._hear()
            match message:
                case ["call" | "next", *_]:
                    self._answer(message)
                case ["uncrossable", why]:
                    raise self._not_judge(str(why)[:200])
                case [str(), *_]:
                    return message
                case _:
                    raise self._lose("a message is none")

    # Answering.

    def serve(self) -> None:
        """Answers requests until the other side hangs up, which raises PeerLost."""
        while True:
            self._answer(self._hear())

    def _answer(self, request: list[Any]) -> None:
        match request:
            case ["call", int(handle), [*arguments], dict(keywords)] if all(isinstance(name, str) for name in keywords):
                whole = _by_place(arguments, keywords)
                before = {place: _whole(value) for place, value in whole.items()}
                reply = self._outcome(lambda: self._own(handle)(*arguments, **keywords), whole)
                changed = [
                    [place, value] for place, value in whole.items() if before[place] and _whole(value) != before[place]
                ]
                self._reply([*reply, changed])
            case ["next", int(handle)]:
                end = object()
                reply = self._outcome(lambda: next(self._own(handle), end), {0: end})
                self._reply(["ended"] if reply[0] == "argument" else [*reply, []])
            case _:
                raise self._lose("a request is none")

    def _outcome(self, action: Callable[[], Any], arguments: dict[int | str, Any]) -> list[Any]:
        try:
            value = action()
        except Exception as error:
            self._trace(error)
            return ["raised", _described(error)]
        for place, argument in arguments.items():
            if value is argument and not isinstance(value, int | str | bytes | None):
                return ["argument", place]
        return ["returned", value]

    def _reply(self, message: list[Any]) -> None:
        try:
            self._say(message)
        except _values.Uncrossable as error:
            self._say(["uncrossable", str(error)])

    # The wire.

    def _say(self, message: list[Any]) -> None:
        encoded = _values.encode(message, self)
        if len(encoded) > _values.MESSAGE_BYTES:
            raise _values.Uncrossable(f"a value of {len(encoded)} bytes is too large to be passed")
        try:
            send(self._channel, encoded)
        except OSError as error:
            raise self._lose(str(error)) from None

    def _hear(self) -> Any:
        try:
            message = _values.decode(receive(self._channel, _values.MESSAGE_BYTES), self)
        except (OSError, EOFError, ValueError) as error:
            raise self._lose(str(error)) from None
        if not isinstance(message, list):
            raise self._lose("a message is no list")
        return message

    def _lose(self, why: str) -> PeerLost:
        self.lost = True
        return PeerLost(why)

    def _not_judge(self, why: str) -> Unjudged:
        self.unjudged = True
        return Unjudged(why)


def _by_place(arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[int | str, Any]:
    whole: dict[int | str, Any] = dict(enumerate(arguments))
    whole.update(keywords)
    return whole


def _whole(value: Any) -> bytes:
    """What an argument holds, if that can change; empty otherwise, and where it holds what cannot be copied."""
    mutable = isinstance(value, _MUTABLE) or type(value).__name__ in ("deque", "ndarray")
    if not (mutable or (isinstance(value, tuple) and any(isinstance(item, _MUTABLE) for item in value))):
        return b""
    try:
        return _values.encode(value)
    except _values.Uncrossable:
        return b""


def _described(error: Exception) -> list[Any]:
    """An exception: its class, the classes above it that the other side may know, its arguments, its text."""
    kinds = [[str(kind.__module__), str(kind.__name__)] for kind in type(error).__mro__[:-2]]
    try:
        text = str(error)
    except Exception:
        text = "<the exception cannot be printed>"
    try:
        _values.encode(list(error.args))
        arguments = list(error.args)
    except _values.Uncrossable:
        arguments = [text]
    return [kinds, arguments, text]


def _exception(described: Any) -> Exception:
    """An exception of the class that the description names, or else of the nearest above that is known here.

    Known are Python's own and those of modules of the standard library that the program here has imported.
    """
    match described:
        case [[[_, str(name)], *_] as kinds, [*arguments], str(text)]:
            base = next(filter(None, map(_known, kinds)), Exception)
            exact = _known(kinds[0]) is base
        case _:
            return RuntimeError("the candidate raised something that is no exception")
    if exact:
        try:
            error = base.__new__(base, *arguments)
            if str(error) == text:
                return error
        except Exception:
            pass  # its text cannot be had from its arguments alone
    members = {"__str__": lambda self: text, "__module__": "candidate"}
    own: type[Exception] = type(name if name.isidentifier() else "Exception", (base,), members)
    error = own.__new__(own)
    error.args = tuple(arguments)
    return error


def _known(kind: Any) -> type[Exception] | None:
    match kind:
        case [str(module), str(name)]:
            standard = module.partition(".")[0] in sys.stdlib_module_names
            found = getattr(sys.modules.get(module), name, None) if standard else None
            if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, ExceptionGroup):
                return found
    return None
