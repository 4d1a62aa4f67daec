"""PROCESS 1, the supervisor: holds the listeners, runs the rollouts, answers on the control socket."""
