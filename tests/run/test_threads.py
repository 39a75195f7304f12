from __future__ import annotations

import torch
from threadpoolctl import threadpool_info, threadpool_limits

from thalweg.run.threads import one_thread


def test_one_thread_for_torch_and_numpy_and_as_many_as_before_after_it():
    def counts():
        return {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            with one_thread():
                assert counts() == {1}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
