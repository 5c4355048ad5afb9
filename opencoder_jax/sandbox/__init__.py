"""How untrusted programs run. Linux only, no privileges; imports nothing else of the project.

Standard library only; numpy is imported in the jail of a judge whose answer returns an array.

Public:

- `pool.Sandbox(limits, workers, preload, hidden, without)`: `run(source, stdin, candidate)` and `map(programs)` give
  outcomes; `layers` says which walls this machine gives. `pool.SandboxError`: no program can be run here at all, or not
  behind enough walls.
- `program.Program`, `program.Candidate` and `program.Command`: what is run. `program.Limits`: what it may use.
  `program.Outcome` and `program.Status`: how it ended.
- `languages`: programs in other languages than Python.

Modules with an underscore are private, from the outside in: who watches a program (`_watch`), the process that programs
are forked from (`_zygote`), the walls around each (`_jail`, `_linux`), what runs inside (`_runner` for Python,
`_commands` for programs of the machine), and what a judge and a candidate say to each other (`pair`).
"""
