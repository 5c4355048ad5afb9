"""What runs on a host of a slice: scripts of bash, each of which can be given again at any time.

A host knows which code and command it was set up for, in which boot (a reboot unmounts what --setup mounted), and how
its training stands. All that lies in its home directory, in HOME.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

HOME = "opencoder-jax"
# Of the training: what it printed, its process, its exit code, that it was told to leave for good; then, which code
# and command the host was set up for, and in which boot.
LOG, PROCESS, ENDED, STOPPED, READY = (f"train.{name}" for name in ("log", "pid", "ended", "stopped", "ready"))

MARK = "opencoder-jax-state:"  # before each host's answer to STATE

_BOOT = "$(cat /proc/sys/kernel/random/boot_id)"
# A process number is given again after a while, so it is looked at what runs under it.
_RUNNING = f'running() {{ grep -qs opencoder_jax "/proc/$(cat {PROCESS} 2>/dev/null)/cmdline"; }}'


@dataclass(frozen=True)
class Host:
    """A host's answer to STATE.

    Attributes:
        name: its own.
        code: the digest that it was set up for; "-": none.
        ready: it was set up since it was booted.
        state: the exit code of its training, "running", "stopped" by STOP, or "idle".
        silent: seconds since the training printed something.
        last: the last line that it printed.
    """

    name: str
    code: str
    ready: bool
    state: str
    silent: float
    last: str = ""


def set_up(archive: str, digest: str, setup: str | None) -> str:
    """A script that lays out the code and its environment on a host, unless that was done.

    Args:
        archive: the name of the copied file.
        digest: of the code and of what it is to run.
        setup: more to do, such as mounting a bucket.
    """
    return "\n".join(
        [
            "set -e",
            # A connection may break while make runs on: the next one waits for it.
            f"mkdir -p {HOME} && cd {HOME} && exec 9>../{HOME}.lock && flock 9",
            _RUNNING,
            f'if running || [ "$(cat {READY} 2>/dev/null)" = "{digest} {_BOOT}" ]; then exit 0; fi',
            f"find . -mindepth 1 -maxdepth 1 ! -name .venv ! -name runs ! -name {LOG} -exec rm -rf {{}} +",
            # -m: the files are as new as they are here, so make sees a changed lock.
            f"tar -xzmf ../{shlex.quote(archive)}",
            # Some images have only an older Python; on a fresh one apt's lock is held for some minutes.
            "suits() { for PYTHON in python3.12 python3.11 python3; do $PYTHON -c 'import sys, venv, ensurepip;"
            " sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && return; done; false; }",
            'get() { sudo apt-get -o DPkg::Lock::Timeout=600 install -qq -y make "$@"; }',
            "suits || { get python3-venv; suits; } || { get python3.11-venv; suits; }",
            "make .venv LOCK=requirements-train.txt PYTHON=$PYTHON",
            ".venv/bin/python -m ensurepip >/dev/null && .venv/bin/python -m pip install --quiet 'jax[tpu]'",
            *([setup] if setup else []),
            f'echo "{digest} {_BOOT}" >{READY}',
        ]
    )


def start(verb: Sequence[str]) -> str:
    """A script that starts `python -m opencoder_jax VERB …` on a host, unless it runs; ENDED gets its exit code."""
    words = " ".join(_quoted(word) for word in verb)
    # Without its Python (126, 127) a host has to be set up again.
    run = (
        f".venv/bin/python -u -m opencoder_jax {words} >>{LOG} 2>&1; code=$?; "
        f"case $code in 126|127) rm -f {READY};; esac; echo $code >{ENDED}"
    )
    # The process that waits for it lives on when the connection ends.
    behind = f"setsid bash -c {shlex.quote(run)} </dev/null >/dev/null 2>&1 & echo $! >{PROCESS}"
    return f"cd {HOME} && {_RUNNING} && {{ running || {{ rm -f {ENDED} {STOPPED}; touch {LOG}; {behind}; }}; }}"


# Prints a host's state.
STATE = "\n".join(
    [
        f"cd {HOME} 2>/dev/null || {{ echo {MARK} $(hostname) - no idle 0; exit; }}",
        _RUNNING,
        f"code=-; boot=; [ -f {READY} ] && read -r code boot <{READY}",
        f'[ "$boot" = "{_BOOT}" ] && ready=yes || ready=no',
        f"if running; then state=running; elif [ -f {STOPPED} ]; then state=stopped",
        f"elif [ -f {ENDED} ]; then state=$(cat {ENDED}); else state=idle; fi",
        f"silent=$(($(date +%s) - $(stat -c %Y {LOG} 2>/dev/null || date +%s)))",
        f"last=$(tail -c 300 {LOG} 2>/dev/null | tr '\\r' '\\n' | tail -n 1)",
        f'echo "{MARK} $(hostname) $code $ready ${{state:-idle}} $silent $last"',
    ]
)

# Tells the training to save and to leave.
STOP = f"cd {HOME} && {_RUNNING} && running && touch {STOPPED} && pkill -TERM -P $(cat {PROCESS}) || true"

# Ends a training that hangs: what it is told first, it may not hear.
KILL = (
    f"cd {HOME} && {_RUNNING} && running && {{ pid=$(cat {PROCESS}); pkill -TERM -P $pid; "
    f"for second in $(seq 60); do running || break; sleep 1; done; kill -KILL -- -$pid; }}; true"
)

# Prints the end of the log of a host whose training failed. Hosts answer at once, so each line bears its host's name.
FAILED_LOG = (
    f"cd {HOME} 2>/dev/null && case $(cat {ENDED} 2>/dev/null) in ''|0|75) ;; "
    f'*) {{ tail -n 1000 {LOG}; echo "exit code $(cat {ENDED})"; }} | sed "s/^/$(hostname): /";; esac; true'
)


def tail(lines: int) -> str:
    """A script that prints the end of a host's log."""
    return f"tail -n {lines} {HOME}/{LOG}"


def parse(printed: str) -> list[Host]:
    """The answers of the hosts to STATE, by name; gcloud's own words around them are left out."""
    hosts = []
    for line in printed.splitlines():
        words = line.split(None, 6)
        if words[:1] == [MARK] and len(words) >= 6 and words[5].lstrip("-").isdecimal():
            hosts.append(Host(words[1], words[2], words[3] == "yes", words[4], float(words[5]), *words[6:]))
    return sorted(hosts, key=lambda host: host.name)


def _quoted(word: str) -> str:
    """Quotes a word for bash, but leaves a ~/ at the start of a flag's value to be the remote home directory."""
    flag, equals, value = word.partition("=")
    if equals and value.startswith("~/"):
        return f'{shlex.quote(flag)}="$HOME"/{shlex.quote(value[2:])}'
    return shlex.quote(word)
