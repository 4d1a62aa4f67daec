"""Serving Django, which imports its URLs at the first request, checks the Host header, and answers 500 by itself."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

from tests.system.harness import Service, in_order

pytestmark = pytest.mark.skipif(importlib.util.find_spec("django") is None, reason="Django is not installed")

SETTINGS = """
SECRET_KEY = "only a test's"
ROOT_URLCONF = "site_urls"
ALLOWED_HOSTS = ["127.0.0.1", "WHOM"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

async def healthz(request):
    return HttpResponse("healthy")

urlpatterns = [path("healthz", healthz)]
"""
MAIN = """
import os
from django.core.asgi import get_asgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
app = get_asgi_application()
"""


def _write(folder: Path, *, host: str = "localhost", urls: str = URLS) -> None:
    (folder / "site_settings.py").write_text(SETTINGS.replace("WHOM", host))
    (folder / "site_urls.py").write_text(urls)


def test_a_bad_release_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    """URLs that cannot be imported fail the boot at once with Django's own traceback, and so does a wrong Host.

    What failed is no exception of the boot's: Django is there, and each request fails anew.
    """
    (tmp_path / "main.py").write_text(MAIN)
    _write(tmp_path)
    with Service(tmp_path, "main:app", "--health-path", "/healthz", "--lifespan", "off") as service:
        service.tracebacks_expected = True
        _write(tmp_path, urls="import nosuch\n")
        began = time.monotonic()
        shown = service.reload()
        assert (shown.returncode, time.monotonic() - began < 20) == (1, True), shown.stdout
        in_order(
            shown.stdout,
            r"boot      0/1 ready; 2\.1 \(pid \d+\) /healthz raised ModuleNotFoundError: No module named 'nosuch'",
            r"\|   File \".*/site_urls\.py\", line 1, in <module>",
            r"\|     import nosuch",
            r"no  gen 2 rejected \(probe\)\. gen 1 never stopped serving\.",
        )
        _write(tmp_path, host="shop.example")
        shown = service.reload()
        assert shown.returncode == 1
        assert "/healthz answered 400 (5 tries in" in shown.stdout, shown.stdout
        assert "does the app check the Host header? --health-host NAME" in shown.stdout
        assert service.get("/healthz") == "healthy"
