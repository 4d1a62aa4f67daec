"""A small Starlette app that shows what stillup does."""
