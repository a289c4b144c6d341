"""What is imported on first use, by many threads at once: each gets all of it.

Without the lock, urllib3 and botocore are found half imported in one of two or three runs.
"""

import subprocess
import sys

CODE = """
import sys, threading, time
from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import SourceFailed
from packetfs_compute.settings import load_settings
from packetfs_compute.sources import RangeRequest, open_source, presign

sys.setswitchinterval(1e-5)
settings, together, done = load_settings(), threading.Barrier(12), []

def sign():
    assert "Signature" in presign("s3://bucket/key", settings)

def connect():
    try:
        open_source(RangeRequest("http://127.0.0.1:1/"), Deadline.after(10), settings)
    except SourceFailed as error:
        assert "connect" in error.message, error.message

def run(act, delay_s):  # they come while the others are in the middle of it
    together.wait()
    time.sleep(delay_s)
    act()
    done.append(act)

acts = [(sign, 0)] * 4 + [(connect, 0.02 * at) for at in range(1, 9)]
threads = [threading.Thread(target=run, args=one) for one in acts]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert len(done) == 12, done
"""


def test_threads_that_come_first_together_all_find_it_whole() -> None:
    environ = {
        "PATH": "", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", CODE], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
