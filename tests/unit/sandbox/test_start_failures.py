"""The words for a sandbox that does not start: cause, surroundings and fix."""

import errno

import pytest

from verl_pipeline.sandbox import kernel_trials, start_failures, surrounding_container
from verl_pipeline.sandbox.start_failures import explain_refusal, explain_start_failure
from verl_pipeline.sandbox.surrounding_container import find_container

STEPS = [
    value
    for name, value in vars(kernel_trials).items()
    if name.isupper() and not name.startswith("_")
]
CONTAINERS = ["", *surrounding_container._ADVICE]
GVISOR_VERSION = "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n"


def make_root(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files, environment, container",
    [
        ({}, {}, ""),
        ({".dockerenv": ""}, {}, "Docker"),
        ({"run/.containerenv": ""}, {}, "Podman"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
        ({}, {"SLURM_JOB_ID": "7"}, "SLURM"),
        ({}, {"SLURM_JOB_ID": "7", "APPTAINER_NAME": "a.sif"}, "Apptainer"),
        ({"proc/version": GVISOR_VERSION}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "gVisor"),
        ({"proc/version": "Linux version 6.6.87-microsoft-standard-WSL2"}, {}, "WSL"),
    ],
)
def test_the_innermost_container_is_found_by_its_marks(tmp_path, files, environment, container):
    assert find_container(environment, make_root(tmp_path, files)) == container


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EINVAL])
def test_every_refusal_has_a_cause_and_a_fix_in_one_line(monkeypatch, container, step, number):
    monkeypatch.setattr(start_failures, "find_container", lambda: container)
    cause, fix = explain_refusal(step, number, "refused")
    assert step in cause and container in cause and fix
    assert "\n" not in cause + fix and "  " not in cause + fix


@pytest.mark.parametrize(
    "settings, number, cause, fix",
    [
        (
            {"kernel/unprivileged_userns_clone": "0"},
            errno.EPERM,
            "kernel.unprivileged_userns_clone=0",
            "kernel.unprivileged_userns_clone=1",
        ),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            errno.EACCES,
            "AppArmor restricts user namespaces",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"user/max_user_namespaces": "0"}, errno.ENOSPC, "=0 is reached", "=15000"),
        ({}, errno.EINVAL, "CONFIG_USER_NS", "use another kernel"),
    ],
)
def test_a_setting_of_the_kernel_is_named(monkeypatch, tmp_path, settings, number, cause, fix):
    monkeypatch.setattr(start_failures, "_KERNEL_SETTINGS", make_root(tmp_path, settings))
    monkeypatch.setattr(start_failures, "find_container", lambda: "")
    for step in (kernel_trials.USER_NAMESPACE, kernel_trials.NESTED):
        found = explain_refusal(step, number, "refused")
        assert cause in found[0] and fix in found[1]


def test_ubuntus_restriction_shows_at_the_user_map_and_the_mounts(monkeypatch, tmp_path):
    """There, a user namespace can be made, but nothing can be done in it."""
    settings = make_root(tmp_path, {"kernel/apparmor_restrict_unprivileged_userns": "1"})
    monkeypatch.setattr(start_failures, "_KERNEL_SETTINGS", settings)
    monkeypatch.setattr(start_failures, "find_container", lambda: "")
    for step in (kernel_trials.USER_MAP, kernel_trials.MOUNTS):
        cause, fix = explain_refusal(step, errno.EPERM, "refused")
        assert "AppArmor" in cause and "bwrap" in fix


@pytest.mark.parametrize("is_filtered", [True, False])
def test_ubuntus_restriction_counts_in_a_container_once_its_filter_is_off(
    monkeypatch, tmp_path, is_filtered
):
    settings = make_root(tmp_path, {"kernel/apparmor_restrict_unprivileged_userns": "1"})
    monkeypatch.setattr(start_failures, "_KERNEL_SETTINGS", settings)
    monkeypatch.setattr(start_failures, "find_container", lambda: "Docker")
    monkeypatch.setattr(start_failures, "_has_seccomp_filter", lambda: is_filtered)
    cause, fix = explain_refusal(kernel_trials.USER_NAMESPACE, errno.EPERM, "refused")
    assert ("seccomp filter" in cause) == ("seccomp=unconfined" in fix) == is_filtered
    assert ("AppArmor restricts" in cause) == ("on the host" in fix) == (not is_filtered)


def test_a_failure_that_no_trial_explains_keeps_its_reason():
    error = explain_start_failure("namespaces", "no answer\nfor 120 s; its output: ")
    assert "does not work here: no answer for 120 s" in str(error)
    assert error.fix == "see docs/sandbox-requirements.md"
