"""TOUCHES the kernel and decides nothing: descriptors, sockets, processes, peers, files, systemd."""
