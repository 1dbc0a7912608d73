"""The checks by themselves where no model reaches them: shapes that a graph does not know yet."""

from __future__ import annotations

import pytest

from rembert.common.checks import check_choice_shapes, check_indices, check_input_shapes, check_labels
from rembert.common.errors import InputError
from tests.frameworks import small_config


def test_an_unknown_dimension_fits_anything() -> None:
    config = small_config(is_decoder=True, add_cross_attention=True)
    check_input_shapes(
        config,
        input_ids=(None, None),
        inputs_embeds=None,
        attention_mask=(4, 7),
        token_type_ids=(None, 5),
        position_ids=(1, None),
        encoder_hidden_states=(None, None, 12),
        encoder_attention_mask=(3, None, 9),
        cached_layers=2,
        cached_length=None,
    )
    with pytest.raises(InputError, match="`attention_mask`"):
        check_input_shapes(config, input_ids=(None, 5), inputs_embeds=None, attention_mask=(None, 6))
    check_choice_shapes(input_ids=(None, 3, None), attention_mask=(2, None, 7))
    with pytest.raises(InputError, match=r"\[2, 4, 7\]"):
        check_choice_shapes(input_ids=(None, 3, None), attention_mask=(2, 4, 7))


def test_ranges() -> None:
    check_indices("input_ids", 0, 9, 10, "vocab_size")
    check_labels("labels", 0, 9, 10, "classes")
    for low, high, quoted in ((-1, 3, -1), (0, 10, 10), (-5, 99, -5)):
        with pytest.raises(InputError, match=rf"`input_ids`.*\[0, 9\].*`vocab_size=10`.*Received: {quoted}\."):
            check_indices("input_ids", low, high, 10, "vocab_size")
        with pytest.raises(InputError, match=rf"`labels`.*\[0, 9\] for 10 classes.*-100.*Received: {quoted}\."):
            check_labels("labels", low, high, 10, "classes")
