"""PROCESS 2, a worker: takes the listeners, runs the app, serves, drains, leaves."""
