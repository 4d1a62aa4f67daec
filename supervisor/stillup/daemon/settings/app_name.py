"""The app's name, MODULE:ATTRIBUTE: what people write instead is refused with what they mean."""

from __future__ import annotations

import os
import re

from stillup.errors import UsageError


def check_app(app: str, folder: str) -> str:
    """The name, if a worker can look it up. ``folder`` is where its module is looked for.

    Raises:
        UsageError: it is a path, a call, or has no attribute; the message has the name that is likely meant.
    """
    if not app.isprintable():
        raise UsageError(f"'{app}' is no app: it is MODULE:ATTRIBUTE")
    where, colon, attribute = app.partition(":")
    is_file = where.endswith(".py") and not os.path.isdir(os.path.join(folder, where.removesuffix(".py")))
    if "/" in where or is_file:
        path, _, file = where.rpartition("/")
        module = file.removesuffix(".py")
        meant = f"{module}:{attribute or 'app'}"
        packages = ".".join(part for part in path.split("/") if part not in ("", "."))
        if not packages or where.startswith(("/", "..")):
            at = f" --app-dir {path}" if packages else ""
            raise UsageError(f"'{app}' names a file, and an app is MODULE:ATTRIBUTE: {meant}{at}")
        raise UsageError(
            f"'{app}' names a file, and an app is MODULE:ATTRIBUTE: {packages}.{meant}, or {meant} --app-dir {path}"
        )
    if not where or (colon and not attribute):
        raise UsageError(f"'{app}' is no app: it is MODULE:ATTRIBUTE, such as {where or 'main'}:{attribute or 'app'}")
    if not colon:
        raise UsageError(f"'{app}' names no attribute, and an app is MODULE:ATTRIBUTE: {app}:app")
    if called := re.fullmatch(r"([\w.]+)\(.*\)", attribute):
        raise UsageError(f"'{app}' is a call: {where}:{called[1]} with --factory, which calls it without arguments")
    return app
