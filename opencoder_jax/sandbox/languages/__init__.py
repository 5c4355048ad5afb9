"""Programs in other languages than Python, on the sandbox.

`table.LANGUAGES` has a row a language; `toolchains` tells which of them this machine can run, and with what;
`polyglot.Polyglot` compiles a source once and runs it many times.
"""
