"""Which of Kubernetes' Pod Security Standards a pod fits, by the tables of their chapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = ("privileged", "baseline", "restricted")
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}


def level(spec: dict[str, Any]) -> str:
    """The strictest standard that lets a pod of this spec in."""
    if list(_against_baseline(spec)):
        return "privileged"
    return "baseline" if list(_against_restricted(spec)) else "restricted"


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _kinds(spec: dict[str, Any]) -> set[str]:
    return {key for volume in spec.get("volumes", []) for key in volume if key != "name"}


def _against_baseline(spec: dict[str, Any]) -> Iterator[str]:
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    if "hostPath" in _kinds(spec):
        yield "hostPath"
    for context in (spec.get("securityContext", {}), *(each.get("securityContext", {}) for each in _containers(spec))):
        if context.get("privileged") or context.get("seccompProfile", {}).get("type") == "Unconfined":
            yield "securityContext"
        if set(context.get("capabilities", {}).get("add", [])) - _CAPABILITIES or context.get("sysctls"):
            yield "capabilities"
        if context.get("procMount", "Default") != "Default" or "seLinuxOptions" in context:
            yield "procMount"
    for each in _containers(spec):
        yield from ("hostPort" for port in each.get("ports", []) if port.get("hostPort"))


def _against_restricted(spec: dict[str, Any]) -> Iterator[str]:
    yield from _kinds(spec) - _VOLUMES
    of_pod = spec.get("securityContext", {})
    for each in _containers(spec):
        context = {**of_pod, **each.get("securityContext", {})}
        if context.get("allowPrivilegeEscalation") is not False or context.get("runAsNonRoot") is not True:
            yield "runs with rights"
        if context.get("runAsUser") == 0 or context.get("seccompProfile", {}).get("type") is None:
            yield "root, or no seccomp profile"
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield "capabilities"
