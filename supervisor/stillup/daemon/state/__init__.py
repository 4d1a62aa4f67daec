"""What is held or written: sockets, the record, the history, figures, what systemd keeps, the log."""
