"""GPUs of AMD and Intel, from copies of the kernel's files."""

from __future__ import annotations

import pytest
from tests.systems import DrmCard, drm_cards, kfd_node, linux, mi300x, write

from quantd_server.host.amd import rocm_devices
from quantd_server.host.description import describe
from quantd_server.host.intel import xpu_devices

GIB = 1 << 30
PCI_IDS = """# a list
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t744c  Navi 31 [Radeon RX 7900 XTX]
\t\t1002 0e3b  a subsystem
8086  Intel Corporation
\t56a0  DG2 [Arc A770]
"""


def test_cards_of_amd(tmp_path):
    first, second = describe(system=mi300x(tmp_path)).devices_of("ROCM")
    assert (first.index, second.index) == (0, 1)
    assert first.name == "AMD Instinct MI300X OAM"
    assert first.architecture == second.architecture == "gfx942"
    assert first.compute_capability == ""
    assert (first.memory_total_bytes, first.memory_free_bytes) == (206_141_652_992, 200_000_000_000)
    assert first.driver_version == "6.12.12"
    assert second.name == "AMD gfx942"
    assert second.memory_total_bytes == second.memory_free_bytes == 206_141_652_992


@pytest.mark.parametrize(
    ("version", "architecture"),
    [(90402, "gfx942"), (90010, "gfx90a"), (110000, "gfx1100"), (100302, "gfx1032")],
)
def test_names_of_architectures(tmp_path, version, architecture):
    kfd_node(tmp_path, 1, gfx_target_version=version)
    (card,) = rocm_devices(tmp_path)
    assert (card.architecture, card.name) == (architecture, f"AMD {architecture}")
    assert card.memory_total_bytes == 0


def test_a_name_from_the_list_of_pci_devices(tmp_path):
    write(tmp_path, {"usr/share/misc/pci.ids": PCI_IDS})
    kfd_node(tmp_path, 0, gfx_target_version=110000, vendor_id=0x1002, device_id=0x744C)
    (card,) = rocm_devices(tmp_path)
    assert card.name == "Navi 31 [Radeon RX 7900 XTX]"


def test_topologies_that_make_no_sense(tmp_path):
    nodes = "sys/class/kfd/kfd/topology/nodes"
    write(
        tmp_path,
        {
            f"{nodes}/0/properties": "",
            f"{nodes}/1/properties": "gfx_target_version -1\nx y z\n\x00",
            f"{nodes}/2/name": "no properties",
            f"{nodes}/other/properties": "gfx_target_version 90402",
        },
    )
    assert rocm_devices(tmp_path) == ()


def test_cards_of_intel(tmp_path):
    system = drm_cards(
        tmp_path,
        DrmCard("0000:00:02.0", device="0x46a6", driver="i915"),  # part of the processor
        DrmCard(
            "0000:07:00.0",
            device="0xe20b",
            files={"tile0/physical_vram_size_bytes": str(12 * GIB)},
        ),
        DrmCard(
            "0000:03:00.0",
            driver="i915",
            files={
                "resource": "0x0000000083000000 0x0000000083ffffff 0x0000000000140204\n"
                "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
                "0x0000004000000000 0x00000043ffffffff 0x000000000014220c\n"
            },
        ),
        DrmCard("0000:04:00.0", vendor="0x10de", driver="nvidia"),
        DrmCard("0000:05:00.0", driver="vfio-pci"),  # given to a virtual machine
    )
    write(tmp_path, {"usr/share/hwdata/pci.ids": PCI_IDS})
    first, second = describe(system=system).devices_of("XPU")
    assert (first.index, first.name, first.memory_total_bytes) == (0, "DG2 [Arc A770]", 16 * GIB)
    assert (second.index, second.name) == (1, "Intel GPU e20b")
    assert second.memory_total_bytes == second.memory_free_bytes == 12 * GIB


@pytest.mark.parametrize("resource", ["", "garbage", "0x1 0x0 0x0\n" * 3, "1 2\n3 4\n5 6\n"])
def test_a_card_that_does_not_tell_its_memory(tmp_path, resource):
    drm_cards(tmp_path, DrmCard("0000:03:00.0", files={"resource": resource}))
    (card,) = xpu_devices(tmp_path)
    assert card.memory_total_bytes == 0


def test_a_machine_without_cards(tmp_path):
    assert [device.kind for device in describe(system=linux(tmp_path)).devices] == ["CPU"]
