"""Cores: what runs on several threads at once gives what it gives one after the other, and leaves torch as it was."""

import pytest
import torch

from rossam_core import devices
from rossam_core.devices import has_fast_bfloat16, on_threads, thread_count


@pytest.mark.parametrize(("cores", "share"), [(1, 1), (2, 1), (7, 2)])
def test_results_come_in_the_order_of_the_parts_each_on_its_share_of_the_cores(cores, share):
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        found = on_threads(lambda part: (part, torch.get_num_threads()), [3, 1, 2])
        assert found == [(3, share), (1, share), (2, share)]
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)


def test_a_single_part_keeps_all_cores_and_none_is_no_error():
    before = torch.get_num_threads()
    assert on_threads(lambda part: torch.get_num_threads(), ["whole"]) == [before]
    assert on_threads(str, []) == []


def test_an_error_in_a_thread_is_raised_here_and_leaves_the_cores_as_they_were():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        on_threads(lambda part: 1 / part, [1, 0])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "amd", "expected"),
    [(True, True, False, True), (False, True, True, True), (False, True, False, False), (False, False, True, False)],
)
def test_a_processor_computes_in_bfloat16_where_that_is_faster(monkeypatch, amx, avx512_bf16, amd, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(devices, "_is_amd", lambda: amd)
    has_fast_bfloat16.cache_clear()
    assert has_fast_bfloat16("cpu") is expected
    has_fast_bfloat16.cache_clear()


def test_a_block_computes_with_the_threads_it_names_and_leaves_torch_as_it_was():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    with thread_count(None):
        assert torch.get_num_threads() == before
