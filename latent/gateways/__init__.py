"""One package an agent protocol. A gateway translates; what is allowed and what comes next is decided behind it."""
