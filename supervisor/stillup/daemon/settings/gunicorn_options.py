"""gunicorn's settings, and what each is here: for its words on our command line, and for ``stillup migrate``.

Every setting of gunicorn 20 to 27 that means something beyond WSGI is here; what a configuration file holds beside them
is a variable of its author's, which gunicorn does not read either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec


class GunicornSetting(msgspec.Struct, frozen=True):
    """A setting of gunicorn, and its counterpart."""

    flags: tuple[str, ...]
    key: str = ""
    """Our option, without its dashes, that takes the same value; empty if there is none."""
    note: str = ""
    """For people: what to do instead, or how the counterpart differs."""
    is_switch: bool = False
    """Its flag takes no value."""

    @property
    def advice(self) -> str:
        """What is said instead of it."""
        return "; ".join(part for part in (f"here it is --{self.key}" if self.key else "", self.note) if part)


def _one(*flags: str, key: str = "", note: str = "", is_switch: bool = False) -> GunicornSetting:
    return GunicornSetting(flags, key, note, is_switch)


LIFESPAN: Final = "the app's lifespan runs at the start and the end of each worker"
_EVENTS: Final = "no code runs in the supervisor; 'stillup events --follow' tells of it"
_MANAGER: Final = "a service manager does that ('stillup systemd install'), and 'stillup ls' has the pid"
_HEADERS: Final = "uvicorn's parser has its own limits (--h11-max-incomplete-event-size)"
_SYSLOG: Final = "the log is stdout and stderr, of which the journal makes fields"
_STATSD: Final = "Prometheus reads /metrics (--admin-bind)"
_HTTP2: Final = "uvicorn serves HTTP/1.1; terminate HTTP/2 in front"
_DIRTY: Final = "run such workers as a service of their own"
_OF_WSGI: Final = "it is of gunicorn's own workers; every worker here is uvicorn's"

SETTINGS: Final[Mapping[str, GunicornSetting]] = {
    "wsgi_app": _one(key="app", note="it is MODULE:ATTRIBUTE, the first word of 'stillup run'"),
    "bind": _one("-b", "--bind", key="bind"),
    "backlog": _one("--backlog", key="backlog"),
    "workers": _one("-w", "--workers", key="workers"),
    "worker_class": _one("-k", "--worker-class", note="every worker is uvicorn's; a WSGI app has --interface wsgi"),
    "threads": _one("--threads", note="an ASGI worker has one event loop; more --workers instead"),
    "worker_connections": _one(
        "--worker-connections", key="limit-concurrency", note="which answers 503 to what is beyond it"
    ),
    "max_requests": _one("--max-requests", key="limit-max-requests"),
    "max_requests_jitter": _one("--max-requests-jitter", key="limit-max-requests-jitter"),
    "timeout": _one(
        "-t", "--timeout", key="hang-timeout", note="which judges the event loop, not how long a request takes"
    ),
    "graceful_timeout": _one("--graceful-timeout", key="timeout-graceful-shutdown"),
    "keepalive": _one("--keep-alive", key="timeout-keep-alive"),
    "limit_request_line": _one("--limit-request-line", note=_HEADERS),
    "limit_request_fields": _one("--limit-request-fields", note=_HEADERS),
    "limit_request_field_size": _one("--limit-request-field_size", note=_HEADERS),
    "reload": _one("--reload", key="reload", is_switch=True),
    "reload_engine": _one("--reload-engine", note="changes are seen by watchfiles, where it is installed"),
    "reload_extra_files": _one("--reload-extra-file", key="reload-include"),
    "spew": _one("--spew", is_switch=True, note="no counterpart"),
    "check_config": _one("--check-config", is_switch=True, note="'stillup check' with the same words does that"),
    "print_config": _one("--print-config", is_switch=True, note="'stillup check' says what is read"),
    "preload_app": _one("--preload", key="preload", is_switch=True),
    "sendfile": _one("--no-sendfile", is_switch=True, note=_OF_WSGI),
    "reuse_port": _one(
        "--reuse-port",
        is_switch=True,
        note="not needed: all workers accept from one listening socket, which loses none",
    ),
    "chdir": _one("--chdir", key="directory", note="a symlink there is followed anew at each reload"),
    "daemon": _one("-D", "--daemon", is_switch=True, note=f"no counterpart: {_MANAGER}"),
    "raw_env": _one("-e", "--env", note="have the variables in the environment, or in a file (--env-file)"),
    "pidfile": _one(
        "-p", "--pid", note="no counterpart: a second start is refused by a lock, and 'stillup ls' has the pid"
    ),
    "worker_tmp_dir": _one("--worker-tmp-dir", note="not needed: workers are heard over a socket, not by a file"),
    "user": _one("-u", "--user", key="worker-user"),
    "group": _one("-g", "--group", key="worker-group"),
    "umask": _one(
        "-m", "--umask", note="is in the mode of Unix binds; for files that the app makes, UMask= of the unit"
    ),
    "initgroups": _one("--initgroups", is_switch=True, note="not needed: --worker-user has all its groups"),
    "tmp_upload_dir": _one(note=_OF_WSGI),
    "secure_scheme_headers": _one(note="X-Forwarded-Proto is what is read (--proxy-headers)"),
    "forwarded_allow_ips": _one("--forwarded-allow-ips", key="forwarded-allow-ips"),
    "accesslog": _one("--access-logfile", note="the access log is part of the log (--log-file, --no-access-log)"),
    "disable_redirect_access_to_syslog": _one("--disable-redirect-access-to-syslog", is_switch=True, note=_SYSLOG),
    "access_log_format": _one("--access-logformat", note="--log-config gives uvicorn's access log another form"),
    "errorlog": _one("--error-logfile", key="log-file", note="which is all of the log, the access log, too"),
    "loglevel": _one("--log-level", key="log-level"),
    "capture_output": _one("--capture-output", is_switch=True, note="not needed: what an app prints is in the log"),
    "logger_class": _one("--logger-class", note="--log-config is for uvicorn's loggers and the app's"),
    "logconfig": _one("--log-config", key="log-config"),
    "logconfig_dict": _one(note="write it into a .json or .yaml file for --log-config"),
    "logconfig_json": _one("--log-config-json", key="log-config"),
    "syslog_addr": _one("--log-syslog-to", note=_SYSLOG),
    "syslog": _one("--log-syslog", is_switch=True, note=_SYSLOG),
    "syslog_prefix": _one("--log-syslog-prefix", note=_SYSLOG),
    "syslog_facility": _one("--log-syslog-facility", note=_SYSLOG),
    "enable_stdio_inheritance": _one("-R", "--enable-stdio-inheritance", is_switch=True, note="that is so always"),
    "statsd_host": _one("--statsd-host", note=_STATSD),
    "dogstatsd_tags": _one("--dogstatsd-tags", note=_STATSD),
    "statsd_prefix": _one("--statsd-prefix", note=_STATSD),
    "enable_backlog_metric": _one("--enable-backlog-metric", is_switch=True, note=_STATSD),
    "proc_name": _one("-n", "--name", key="name"),
    "pythonpath": _one("--pythonpath", key="app-dir"),
    "paste": _one("--paste", "--paster", note="name the app: MODULE:ATTRIBUTE"),
    "raw_paste_global_conf": _one("--paste-global", note="name the app: MODULE:ATTRIBUTE"),
    "on_starting": _one(note=_EVENTS),
    "on_reload": _one(note=_EVENTS),
    "when_ready": _one(note=_EVENTS),
    "pre_fork": _one(note=_EVENTS),
    "post_fork": _one(note=LIFESPAN),
    "post_worker_init": _one(note=LIFESPAN),
    "worker_int": _one(note=LIFESPAN),
    "worker_abort": _one(note="a worker that hangs leaves the stack of its threads in the log"),
    "pre_exec": _one(note=_EVENTS),
    "pre_request": _one(note="a middleware of the app sees each request"),
    "post_request": _one(note="a middleware of the app sees each request"),
    "child_exit": _one(note=_EVENTS),
    "worker_exit": _one(note=LIFESPAN),
    "nworkers_changed": _one(note=_EVENTS),
    "on_exit": _one(note=_EVENTS),
    "ssl_context": _one(note="terminate TLS in front, or --ssl-certfile and --ssl-keyfile"),
    "proxy_protocol": _one("--proxy-protocol", is_switch=True, note="have the proxy send X-Forwarded-For"),
    "proxy_allow_ips": _one("--proxy-allow-from", note="have the proxy send X-Forwarded-For"),
    "protocol": _one("--protocol", note="have the proxy speak HTTP"),
    "uwsgi_allow_ips": _one("--uwsgi-allow-from", note="have the proxy speak HTTP"),
    "keyfile": _one("--keyfile", key="ssl-keyfile"),
    "certfile": _one("--certfile", key="ssl-certfile"),
    "ssl_version": _one("--ssl-version", key="ssl-version"),
    "cert_reqs": _one("--cert-reqs", key="ssl-cert-reqs"),
    "ca_certs": _one("--ca-certs", key="ssl-ca-certs"),
    "ciphers": _one("--ciphers", key="ssl-ciphers"),
    "suppress_ragged_eofs": _one("--suppress-ragged-eofs", is_switch=True, note=_OF_WSGI),
    "do_handshake_on_connect": _one("--do-handshake-on-connect", is_switch=True, note=_OF_WSGI),
    "http_protocols": _one("--http-protocols", note=_HTTP2),
    "http2_cleartext": _one("--http2-cleartext", note=_HTTP2),
    "http2_max_concurrent_streams": _one("--http2-max-concurrent-streams", note=_HTTP2),
    "http2_initial_window_size": _one("--http2-initial-window-size", note=_HTTP2),
    "http2_max_frame_size": _one("--http2-max-frame-size", note=_HTTP2),
    "http2_max_header_list_size": _one("--http2-max-header-list-size", note=_HTTP2),
    "permit_obsolete_folding": _one("--permit-obsolete-folding", is_switch=True, note=_HEADERS),
    "strip_header_spaces": _one("--strip-header-spaces", is_switch=True, note=_HEADERS),
    "permit_unconventional_http_method": _one("--permit-unconventional-http-method", is_switch=True, note=_HEADERS),
    "permit_unconventional_http_version": _one("--permit-unconventional-http-version", is_switch=True, note=_HEADERS),
    "casefold_http_method": _one("--casefold-http-method", is_switch=True, note=_HEADERS),
    "forwarder_headers": _one("--forwarder-headers", note="X-Forwarded-For and X-Forwarded-Proto are what is read"),
    "header_map": _one("--header-map", note="a header's name is passed on as it came"),
    "asgi_loop": _one("--asgi-loop", key="loop"),
    "asgi_lifespan": _one("--asgi-lifespan", key="lifespan"),
    "asgi_disconnect_grace_period": _one("--asgi-disconnect-grace-period", note="an app is told at once"),
    "websocket_max_message_size": _one("--websocket-max-message-size", key="ws-max-size"),
    "http_parser": _one("--http-parser", key="http", note="httptools, h11 or auto"),
    "root_path": _one("--root-path", key="root-path"),
    "dirty_apps": _one("--dirty-app", note=_DIRTY),
    "dirty_workers": _one("--dirty-workers", note=_DIRTY),
    "dirty_timeout": _one("--dirty-timeout", note=_DIRTY),
    "dirty_threads": _one("--dirty-threads", note=_DIRTY),
    "dirty_graceful_timeout": _one("--dirty-graceful-timeout", note=_DIRTY),
    "on_dirty_starting": _one(note=_DIRTY),
    "dirty_post_fork": _one(note=_DIRTY),
    "dirty_worker_init": _one(note=_DIRTY),
    "dirty_worker_exit": _one(note=_DIRTY),
    "control_socket": _one("--control-socket", note="it is in the runtime directory (--runtime-dir)"),
    "control_socket_mode": _one("--control-socket-mode", note="--control-group lets a group connect"),
    "control_socket_disable": _one("--no-control-socket", is_switch=True, note="it is how a reload is asked for"),
}
"""By the names that they have in gunicorn.conf.py."""
WORKER_CLASSES: Final = ("uvicorn.", "uvicorn_worker.", "asgi", "gunicorn.workers.gasgi.")
"""Beginnings of the names of worker classes that serve ASGI, as every worker does here."""


class GunicornOption(click.Option):
    """A word of gunicorn's command line: it is understood, and answered with ours; never shown in a help."""

    def __init__(self, name: str, flags: list[str], setting: GunicornSetting) -> None:
        super().__init__(
            [*flags, f"gunicorn_{name}"],
            is_flag=setting.is_switch,
            default=None,
            hidden=True,
            expose_value=False,
            callback=_answer,
        )
        self.setting = name


def words(taken: set[str]) -> list[GunicornOption]:
    """The options of gunicorn whose flags mean nothing else here.

    Args:
        taken: the flags that are ours, or uvicorn's.
    """
    found = []
    for name, setting in SETTINGS.items():
        flags = [flag for flag in setting.flags if flag not in taken]
        if flags and (not setting.key or f"--{setting.key}" not in setting.flags):
            found.append(GunicornOption(name, flags, setting))
    return found


def _answer(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Take what is so here anyway; say what the rest is here.

    Raises:
        click.UsageError: it is something else here, or nothing.
    """
    if value is None or value is False or not isinstance(parameter, GunicornOption):
        return
    name, flag = parameter.setting, parameter.opts[-1]
    if name == "worker_class" and str(value).startswith(WORKER_CLASSES):
        if "H11" in str(value):
            raise click.UsageError(f"{flag} {value} is gunicorn's: here it is --http h11 --loop asyncio", context)
        return
    if name in ("accesslog", "errorlog") and value == "-":
        return
    raise click.UsageError(f"{flag} is gunicorn's: {SETTINGS[name].advice}", context)
