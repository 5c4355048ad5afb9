"""What a row of the table of languages says (`table.py` has the rows)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Line = tuple[str, ...]  # a command line


@dataclass(frozen=True)
class LanguageRow:
    """A row.

    Attributes:
        name: as people write it.
        install: what brings its toolchain.
        version: the command that tells it; its first word is the program that must be there.
        run: the command line of a program.
        file: what its source is called.
        compile: the command lines that come before.
        keep: what of their work is needed to run.
        quick: a pattern, and command lines that are tried first where the source has it. What they compile means the
            same as what `compile` does.
        needs: other programs that must be there.
        places: where programs may lie that aren't on the PATH.
        root: the command that prints the toolchain's directory.
        prepare: command lines that make something for all programs, in {cache}, once and outside of any jail.
        prepared: files that they find there.
        forks: whether a program may start processes.
        counted: whether memory is counted.
        proc: whether compiler and programs need a /proc, of their own processes alone.
        reads: files of the toolchain outside /usr.
        environment: variables of its compiler and programs.
        named: a pattern that finds the program's name in its source, the likeliest first.
        exhausted: what the runtime says where memory ends, if it says it.
    """

    name: str
    install: str
    version: Line
    run: Line
    file: str
    compile: tuple[Line, ...] = ()
    keep: tuple[str, ...] = ("main",)
    quick: tuple[str, tuple[Line, ...]] | None = None
    needs: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    root: Line = ()
    prepare: tuple[Line, ...] = ()
    prepared: Mapping[str, str] = field(default_factory=dict)
    forks: bool = False
    counted: bool = False
    proc: bool = False
    reads: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    exhausted: str = ""
