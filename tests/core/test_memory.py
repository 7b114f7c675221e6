import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from onsight.core import memory
from onsight.core.memory import BUDGET, LARGE, room


@pytest.mark.parametrize(("size", "most"), [(BUDGET // 2, 2), (BUDGET // 2 + 1, 1), (2 * BUDGET, 1), (LARGE - 1, 6)])
def test_large_things_share_a_budget(size, most):
    inside, seen, lock = [0], [], threading.Lock()

    def work():
        with room(size):
            with lock:
                inside[0] += 1
                seen.append(inside[0])
            time.sleep(0.05)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) == most
    assert memory._taken == [0]


def test_room_is_given_back_after_an_error():
    with pytest.raises(KeyError), room(BUDGET):
        raise KeyError
    assert memory._taken == [0]


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="Linux only")
def test_pages_of_libraries_are_given_back_and_come_back_by_themselves():
    code = """
import re
from pathlib import Path
import numpy as np
from onsight.core.memory import release_libraries

def mapped():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssFile:\\s+(\\d+)", status)[1])

before = mapped()
release_libraries()
after = mapped()
assert np.linalg.inv(np.eye(8) * 2).sum() == 4
print(before, after)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    before, after = map(int, said.split())
    assert after < before / 2
