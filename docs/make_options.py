"""Makes ``docs/options.md`` from the command line itself: ``python -m docs.make_options > docs/options.md``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import click
import uvicorn

from stillup.daemon.settings.config_reader import REEXEC, RESTART
from stillup.daemon.settings.hook_options import FileTable
from stillup.daemon.settings.options import key_of, parameters

HEAD: Final = "| option | default | variable | takes effect | |"
INTRODUCTION: Final = """\
# Options

Of `stillup run APP` and `stillup check APP`. Each can be given as a flag, as an environment variable, and as a key of
`stillup.toml` (or of `[tool.stillup]` in `pyproject.toml`) by the flag's name without its dashes. A flag wins over a
variable, a variable over the file. An option that may be given several times is a list in the file:

```toml
app = "main:app"
bind = ["127.0.0.1:8000", "unix:/run/shop.sock,mode=0660,group=www-data"]
workers = 4
health-path = "/healthz"
```

All of it is read when the supervisor starts, and the file again at each reload, as far as it was changed: the one that
the start has read, by the same path. Flags and variables stay as they were at the start, and win. `stillup reload` and
the log list each changed key: applied, overridden, or what it needs. **Reload**: the next generation has it, and the
supervisor from then on (but for `--log-level`, which its own lines follow at a re-exec); if the rollout is aborted,
what was before is in force again. **Re-exec**:
`stillup supervisor reexec` puts it into service, by a reload where workers are concerned.
**Restart**: it takes a stop and a start.

A file that means nothing rejects the reload, with the key and its line, and so does one that was changed where somebody
other than root and the supervisor's own user could have done it (the file, or any directory above it; exit 1, type
`configuration`). One that is gone changes nothing, which is said. A reload also looks anew at what options lead to: the
directory behind a symlink (`--directory`), the interpreter (`--python`), the environment file (`--env-file`), the app.

This page is made by `python -m docs.make_options`; a test compares the two.
"""
HOOKS: Final = """\
## `[hooks]`

Programs that are run around each rollout. They stand in the file alone, in `[hooks]` of `stillup.toml` or
`[tool.stillup.hooks]` of `pyproject.toml`: no flag, variable or request names one. A reload reads them again like
any other key; what is run is what the file says at the reload.

```toml
hook-timeout = 900

[hooks]
before = ["python", "manage.py", "migrate", "--noinput"]
after = ["./bin/tell-the-others", "deployed"]
```

| key | runs | if it fails |
|---|---|---|
| `before` | before the first worker of a rollout, the start's too | the rollout is rejected; what serves goes on |
| `after` | when the new generation serves | an event, `hook.failed`; nothing else |

Each is a program and its arguments, a list of texts; no shell reads it (`["sh", "-c", "..."]` is one). `python` as the
first word is the release's interpreter (`--python`); any other program is looked for in the release's `PATH`, and one
with a `/` from its directory. What they are given, and when they are ended:
[the guide](guide.md#hooks-before-and-after).
"""
UVICORNS: Final = """\
## uvicorn's options

As uvicorn {version} describes them; `run` takes those of the version that is installed. `--host` and `--port`, `--uds`
and `--fd` are each one bind, and cannot be combined with `--bind`. `--workers`, `--reload` and its filters are the
supervisor's to act on; `--timeout-graceful-shutdown` is the default of `--drain-timeout` and of `--stop-timeout`.
"""


def page() -> str:
    """The whole page."""
    return f"{own_part()}\n{uvicorns_part()}"


def own_part() -> str:
    """The page without uvicorn's options, which differ between its versions."""
    own = [one for one in parameters() if not is_uvicorns(one) and not isinstance(one, FileTable)]
    return "\n".join([INTRODUCTION, "## stillup's own", "", *_table(own), "", HOOKS])


def uvicorns_part() -> str:
    """The options of uvicorn, as the installed version has them."""
    passed = [one for one in parameters() if is_uvicorns(one)]
    return "\n".join([UVICORNS.format(version=uvicorn.__version__), *_table(passed), ""])


def is_uvicorns(parameter: click.Parameter) -> bool:
    """Whether an option is uvicorn's: it can be given as UVICORN_*, too."""
    return parameter.name != "app" and len(_variables(parameter)) > 1


def _table(shown: Sequence[click.Parameter]) -> Iterator[str]:
    yield HEAD
    yield "|---|---|---|---|---|"
    for parameter in shown:
        text, default = _help(parameter)
        variables = " ".join(f"`{name}`" for name in _variables(parameter))
        effect = "restart" if parameter.name in RESTART else "re-exec" if parameter.name in REEXEC else "reload"
        cells = (_option(parameter), default, variables, effect, text)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _option(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return f"`{parameter.metavar}` (key `{key_of(parameter)}`)"
    flags = "` `".join([*parameter.opts, *parameter.secondary_opts])
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return f"`{flags}`"
    if isinstance(parameter.type, click.Choice):
        return f"`{flags}` {', '.join(f'`{one}`' for one in parameter.type.choices)}"
    return f"`{flags} {parameter.metavar or parameter.type.name.upper()}`"


def _help(parameter: click.Parameter) -> tuple[str, str]:
    """What an option does, and its default."""
    if not isinstance(parameter, click.Option):
        return "The app: `MODULE:ATTRIBUTE`.", ""
    text = " ".join((parameter.help or "").split())
    said = re.search(r" ?\[default: ([^\]]*)\]", text)
    if said is not None:
        return text.replace(said[0], ""), said[1]
    if parameter.show_default and isinstance(parameter.default, str | int | float):
        if parameter.default is False or parameter.default == "":
            return text, ""
        return text, f"`{parameter.default}`"
    return text, ""


def _variables(parameter: click.Parameter) -> list[str]:
    given = parameter.envvar
    return [given] if isinstance(given, str) else list(given or ())


if __name__ == "__main__":
    print(page(), end="")
