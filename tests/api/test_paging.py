"""Page tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantd import v1
from quantd_server.api.paging import position_of, token_of
from quantd_server.errors import QuantdError


@given(st.integers(1, 2**63 - 1), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_token_leads_back_to_its_position(position, first_size, second_size):
    request = v1.InspectCheckpointRequest(source_uri="/a", page_size=first_size)
    token = token_of(request, position)
    assert len(token) <= 256
    again = v1.InspectCheckpointRequest(source_uri="/a", page_size=second_size, page_token=token)
    assert position_of(again) == position


def test_no_token_is_the_start():
    assert position_of(v1.ListJobsRequest()) == 0


@given(st.text(min_size=1, max_size=64))
def test_other_texts_are_refused(token):
    with pytest.raises(QuantdError) as error:
        position_of(v1.ListJobsRequest(page_token=token))
    assert error.value.reason == "PAGE_TOKEN_INVALID"


def test_a_token_of_another_request_is_refused():
    token = token_of(v1.InspectCheckpointRequest(source_uri="/a"), 3)
    with pytest.raises(QuantdError):
        position_of(v1.InspectCheckpointRequest(source_uri="/b", page_token=token))
    with pytest.raises(QuantdError):
        position_of(v1.ListJobsRequest(page_token=token))
