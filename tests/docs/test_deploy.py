"""deploy/: manifests that Kubernetes takes, and what in them has to go together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillup.daemon.run_commands import run
from tests.docs.pages import ROOT

kubernetes_validate = pytest.importorskip("kubernetes_validate")
KUBERNETES = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted(file for file in KUBERNETES.glob("*.yaml") if file.name != "kustomization.yaml")
VERSIONS = ("1.27", kubernetes_validate.latest_version())
VARIABLES = {name for parameter in run.params for name in (parameter.envvar or [])}
OF_PLATFORMS = {"PORT", "WEB_CONCURRENCY", "PATH", "PYTHONDONTWRITEBYTECODE"}


def read(file: str) -> Any:
    return yaml.safe_load((KUBERNETES / file).read_text())


def pod() -> dict[str, Any]:
    found: dict[str, Any] = read("deployment.yaml")["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_kubernetes_takes_it(file: Path, version: str) -> None:
    """By the schemas of its own API, nothing unknown in it."""
    kubernetes_validate.validate(yaml.safe_load(file.read_text()), version, strict=True)


def test_a_wrong_word_is_found_out() -> None:
    """Else the test above would say nothing."""
    manifest = read("deployment.yaml")
    manifest["spec"]["template"]["spec"]["containers"][0]["startupProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_all_of_them_are_applied() -> None:
    """By kustomize, which kubectl has."""
    assert read("kustomization.yaml")["resources"] == [file.name for file in MANIFESTS]
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here")
    argv = [kubectl, "kustomize", str(KUBERNETES)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    assert {one["kind"] for one in yaml.safe_load_all(done.stdout)} == {
        *("ConfigMap", "Deployment", "PodDisruptionBudget", "Service")
    }


def test_what_goes_together() -> None:
    """The grace period is that of the rule, selectors select, ports are there; and the update takes none away."""
    (container,) = pod()["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    rule = float(variables["STILLUP_STOP_DELAY"]) + float(variables["STILLUP_STOP_TIMEOUT"]) + 5
    assert pod()["terminationGracePeriodSeconds"] == rule
    assert "lifecycle" not in container
    labels = read("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert read("service.yaml")["spec"]["selector"] == labels
    for file in ("deployment.yaml", "poddisruptionbudget.yaml"):
        assert read(file)["spec"]["selector"]["matchLabels"] == labels
    ports = {port["name"] for port in container["ports"]}
    probes = [container[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert {*probes, read("service.yaml")["spec"]["ports"][0]["targetPort"]} <= ports
    assert read("deployment.yaml")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (volume,) = pod()["volumes"]
    assert volume["configMap"]["name"] == read("configmap.yaml")["metadata"]["name"]
    assert container["volumeMounts"][0]["mountPath"] in container["args"]


@pytest.mark.parametrize("file", ["container/Dockerfile", "container/compose.yaml", "kubernetes/deployment.yaml"])
def test_every_variable_is_read(file: str) -> None:
    """By stillup, or by whom platforms set it for."""
    text = (ROOT / "deploy" / file).read_text()
    said = re.findall(r"^ENV (\w+)=|^ +(STILLUP_\w+): |- name: ([A-Z_]+)$", text, re.MULTILINE)
    names = {name for names in said for name in names if name}
    assert len(names) > 1
    assert names <= VARIABLES | OF_PLATFORMS
