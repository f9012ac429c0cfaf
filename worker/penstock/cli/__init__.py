"""The command line: `penstock run · graph · check · list · status · … · snapshots · state · gc`.

Results go to stdout, everything else to stderr. `main` is the door; every command is a module of its
own, imported when it is asked for. What is printed is made by pure functions, tested on text.
"""
