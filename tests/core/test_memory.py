import threading
import time

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
