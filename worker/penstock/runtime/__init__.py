"""The doing half: processes, sockets, clocks. Decisions are made in `checkpoint`, values are `core`'s."""
