"""python -m opencoder_jax serve: answers over HTTP as OpenAI's API does, with a page at / for people.

The port is taken before the model is loaded, and listened at once the model can answer: what can't work is told at
once, and who is let in is answered.
"""

import argparse
import asyncio
import signal
import socket
import time
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import READS, Engine
from opencoder_jax.inference.requests import Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.recipe import UserError, build, parse_flags, refuse_unknown
from opencoder_jax.serving.application import ServedModel, application
from opencoder_jax.serving.bridge import Bridge
from opencoder_jax.serving.config import ServeConfig
from opencoder_jax.serving.gate import names_of, read_keys


def main(argv: list[str]) -> None:
    """Serves until it's told to stop. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax serve",
        description="Serves a model over HTTP: OpenAI's API, metrics, and a page at / to talk to it.",
        epilog=(
            "example:\n"
            "  python -m opencoder_jax serve --checkpoint=runs/cookbook/train/sft\n"
            "then open http://127.0.0.1:8000, or\n"
            "  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' "
            '-d \'{"prompt": "def add(a, b):"}\'\n'
        ),
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="the directory of a run")
    parser.add_argument("--step", type=int, metavar="N", help="which checkpoint; the newest by default")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at: this machine only by default; 0.0.0.0 for all"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one and says which")
    parser.add_argument(
        "--api_key_file", type=Path, metavar="FILE", help="one key a line; who asks must give one of them"
    )
    flags, rest = parse_flags(parser, argv, ServeConfig, EngineConfig)
    refuse_unknown(parser, rest)
    config = build(ServeConfig)
    keys = read_keys(flags.api_key_file)
    with _bound(flags.host, flags.port) as listener:
        started = time.monotonic()
        engine = Engine.open(flags.checkpoint, flags.step)
        model = _described(engine, flags.checkpoint, config)
        _warm_up(engine)
        port = listener.getsockname()[1]
        shown = f"[{flags.host}]" if ":" in flags.host else flags.host
        listener.listen(config.connections)
        print(f"{model.name}: http://{shown}:{port} (ready in {time.monotonic() - started:.1f} s)", flush=True)
        serve(model, engine, config, listener, keys, names_of(flags.host))


def serve(
    model: ServedModel,
    engine: Engine,
    config: ServeConfig,
    listener: socket.socket,
    keys: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
) -> None:
    """Answers what comes to a bound socket until SIGTERM or SIGINT; then finishes what is under way.

    Raises:
        RuntimeError: the engine failed; its own error is the cause.
    """
    bridge = Bridge(engine, config.waiting)
    server = http_server(application(model, bridge, config, keys, hosts), config)
    bridge.on_failure = lambda: setattr(server, "should_exit", True)
    # Uvicorn raises the signal that stopped it again when all is finished: that was no failure.
    previous = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    if bridge.failure is not None:
        raise RuntimeError("the engine failed") from bridge.failure


def http_server(app: ASGIApp, config: ServeConfig) -> uvicorn.Server:
    """Uvicorn around an application, with the limits that are its own."""
    settings = uvicorn.Config(
        app,
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=config.connections,
        timeout_graceful_shutdown=config.shutdown_seconds,
    )
    return uvicorn.Server(settings)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has its port and doesn't listen yet. Raises UserError when it can't have it."""
    if not 0 <= port < 65536:
        raise UserError(f"--port={port}: must be from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"--host={host}: {error.strerror or error}; 127.0.0.1 is this machine, 0.0.0.0 all") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UserError(f"{host}:{port}: {error.strerror}; free the port, or take another by --port") from None
    return listener


def _described(engine: Engine, directory: Path, config: ServeConfig) -> ServedModel:
    model = engine.model
    return ServedModel(
        name=config.model_name or directory.resolve().name,
        tokenizer=engine.tokenizer,
        context=model.config.context,
        created=int(directory.stat().st_mtime),
        fingerprint=f"fp_{model.fingerprint[:12]}",
    )


def _warm_up(engine: Engine) -> None:
    """Answers prompts of the lengths that are read at once, so that the first client needn't wait for compilers."""
    context, token = engine.model.config.context, engine.tokenizer.end_of_document
    for length in {max(1, min(size + 1, context - 1)) for size in (0, *READS)}:
        engine.submit([Request((token,) * length, SamplingConfig(max_tokens=1))])
        while engine.busy:
            engine.step()
