import subprocess


def add(a, b):
    subprocess.Popen(
        ["/bin/sh", "-c", "sleep 10 & sleep 10 & exec sleep 10"],
        start_new_session=True,
        close_fds=False,
    )
    return "wrong"
