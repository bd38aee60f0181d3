"""The Triton kernels of windowed affinity: one pass over logits and labels, and the gradients.

A window with step d contains only pixels of its own phase (row % d, column % d), so rows and columns below are
those of one phase, in which windows are dense. A program takes a square tile of one phase and visits, in blocks,
the pixels that windows of the tile reach inside the frame. Steps are read here, so the host does not wait for them:
it starts as many programs as a frame of step 1 has tiles, and each takes every so many of the tiles there are.

Nothing is added atomically, so results do not depend on the order in which programs run.
"""
# Triton compiles these functions; their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import triton
import triton.language as tl


@triton.jit
def _features(frame, pixels, valid, CHANNELS: tl.constexpr, WIDTH: tl.constexpr):
    """[pixels, WIDTH] float32 from a frame [H * W, CHANNELS]; 0 where not valid."""
    channel = tl.arange(0, WIDTH)
    mask = valid[:, None] & (channel < CHANNELS)[None, :]
    return tl.load(frame + pixels[:, None] * CHANNELS + channel[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _places(area, pixels, valid, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """Offsets into a frame [DEPTH, area] and their mask, both [pixels, WIDTH]."""
    channel = tl.arange(0, WIDTH)
    mask = valid[:, None] & (channel < DEPTH)[None, :]
    return channel[None, :] * area + pixels[:, None], mask


@triton.jit
def _maps(frame, area, pixels, valid, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """[pixels, WIDTH] float32 from a frame [DEPTH, area]; 0 where not valid."""
    places, mask = _places(area, pixels, valid, DEPTH, WIDTH)
    return tl.load(frame + places, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _num_tiles(step, height, width, SIDE: tl.constexpr):
    """Tiles of all phases of a frame."""
    down = tl.cdiv(tl.cdiv(height, step), SIDE)
    across = tl.cdiv(tl.cdiv(width, step), SIDE)
    return tl.minimum(step, height) * tl.minimum(step, width) * down * across


@triton.jit
def _tile(tile, step, height, width, SIDE: tl.constexpr):
    """First row and column of the tile's phase in the frame, size of the phase, first row and column in it."""
    down = tl.cdiv(tl.cdiv(height, step), SIDE)
    across = tl.cdiv(tl.cdiv(width, step), SIDE)
    phase = tile // (down * across)
    phase_y = phase // tl.minimum(step, width)
    phase_x = phase % tl.minimum(step, width)
    rows, columns = tl.cdiv(height - phase_y, step), tl.cdiv(width - phase_x, step)
    return phase_y, phase_x, rows, columns, tile // across % down * SIDE, tile % across * SIDE


@triton.jit
def _reach(first, size, radius, SIDE: tl.constexpr):
    """First and number of the positions along one axis that windows around a tile contain."""
    start = tl.maximum(first - radius, 0)
    return start, tl.maximum(tl.minimum(first + SIDE + radius, size) - start, 0)


@triton.jit
def _in_window(row, column, other_row, other_column, valid, radius):
    """[tile, block] bool."""
    near_y = tl.abs(row[:, None] - other_row[None, :]) <= radius
    near_x = tl.abs(column[:, None] - other_column[None, :]) <= radius
    return near_y & near_x & valid[None, :]


@triton.jit
def _group(steps, slot, height, width, SIDE: tl.constexpr):
    """The step of a slot, and the tiles of that step; no tiles if it is empty or an earlier slot has the same."""
    step = tl.load(steps + slot)
    tiles = tl.where(step > 0, 1, 0)
    for earlier in range(0, slot):
        tiles = tl.where(tl.load(steps + earlier) == step, 0, tiles)
    # A step beyond the frame leaves a pixel alone in its phase, as the longer side does.
    used = tl.minimum(tl.maximum(step, 1), tl.maximum(height, width))
    return step, used, tiles * _num_tiles(used, height, width, SIDE)


@triton.jit(do_not_specialize=["slot"])
def read(
    query, keys, values, steps, maximum, total, weighted,
    slot, slots, height, width, radius, scale, programs,
    CHANNELS: tl.constexpr, CHANNEL_WIDTH: tl.constexpr, LABELS: tl.constexpr, LABEL_WIDTH: tl.constexpr,
    WITH_VALUES: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
    LOGIT_PRECISION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Continue the online softmax of every query with the slots that have the step of ``slot``.

    Per query: ``maximum`` and ``total`` of 2 ** (logit - maximum), and, WITH_VALUES, the labels ``weighted`` likewise.
    """
    element = tl.program_id(0) // programs
    element_steps = steps + element * slots
    group, step, tiles = _group(element_steps, slot, height, width, SIDE)
    area = height * width
    pixels_before = element.to(tl.int64) * area
    for tile in range(tl.program_id(0) % programs, tiles, programs):
        phase_y, phase_x, rows, columns, top, left = _tile(tile, step, height, width, SIDE)
        row = top + tl.arange(0, SIDE * SIDE) // SIDE
        column = left + tl.arange(0, SIDE * SIDE) % SIDE
        valid = (row < rows) & (column < columns)
        pixel = (phase_y + row * step) * width + phase_x + column * step
        features = _features(query + pixels_before * CHANNELS, pixel, valid, CHANNELS, CHANNEL_WIDTH)
        largest = tl.load(maximum + pixels_before + pixel, mask=valid, other=0.0)
        sums = tl.load(total + pixels_before + pixel, mask=valid, other=0.0)
        if WITH_VALUES:
            labels = _maps(weighted + pixels_before * LABELS, area, pixel, valid, LABELS, LABEL_WIDTH)
        first_row, down = _reach(top, rows, radius, SIDE)
        first_column, across = _reach(left, columns, radius, SIDE)
        for other in range(slot, slots):
            count = tl.where(tl.load(element_steps + other) == group, down * across, 0)
            keys_before = (element.to(tl.int64) * slots + other) * area
            for start in range(0, count, BLOCK):
                at = start + tl.arange(0, BLOCK)
                key_row, key_column = first_row + at // across, first_column + at % across
                key_pixel = (phase_y + key_row * step) * width + phase_x + key_column * step
                key = _features(keys + keys_before * CHANNELS, key_pixel, at < count, CHANNELS, CHANNEL_WIDTH)
                inside = _in_window(row, column, key_row, key_column, at < count, radius)
                logits = scale * tl.dot(features, tl.trans(key), input_precision=LOGIT_PRECISION)
                logits = tl.where(inside, logits, float("-inf"))
                new = tl.maximum(largest, tl.max(logits, 1))
                weights = tl.exp2(logits - new[:, None])
                rescale = tl.exp2(largest - new)
                sums = sums * rescale + tl.sum(weights, 1)
                if WITH_VALUES:
                    value = _maps(
                        values + keys_before * LABELS, area, key_pixel, at < count, LABELS, LABEL_WIDTH
                    )
                    labels = labels * rescale[:, None] + tl.dot(weights, value, input_precision=PRECISION)
                largest = new
        tl.store(maximum + pixels_before + pixel, largest, mask=valid)
        tl.store(total + pixels_before + pixel, sums, mask=valid)
        if WITH_VALUES:
            places, mask = _places(area, pixel, valid, LABELS, LABEL_WIDTH)
            tl.store(weighted + pixels_before * LABELS + places, labels, mask=mask)


@triton.jit(do_not_specialize=["slot"])
def query_gradient(
    query, keys, values, steps, maximum, factor, grad, row_sums, into,
    slot, slots, height, width, radius, scale, programs,
    CHANNELS: tl.constexpr, CHANNEL_WIDTH: tl.constexpr, LABELS: tl.constexpr, LABEL_WIDTH: tl.constexpr,
    SIDE: tl.constexpr, BLOCK: tl.constexpr, LOGIT_PRECISION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add, for tiles of queries, the gradient through the slots that have the step of ``slot``."""
    element = tl.program_id(0) // programs
    element_steps = steps + element * slots
    group, step, tiles = _group(element_steps, slot, height, width, SIDE)
    area = height * width
    pixels_before = element.to(tl.int64) * area
    for tile in range(tl.program_id(0) % programs, tiles, programs):
        phase_y, phase_x, rows, columns, top, left = _tile(tile, step, height, width, SIDE)
        row = top + tl.arange(0, SIDE * SIDE) // SIDE
        column = left + tl.arange(0, SIDE * SIDE) % SIDE
        valid = (row < rows) & (column < columns)
        pixel = (phase_y + row * step) * width + phase_x + column * step
        features = _features(query + pixels_before * CHANNELS, pixel, valid, CHANNELS, CHANNEL_WIDTH)
        toward = _maps(grad + pixels_before * LABELS, area, pixel, valid, LABELS, LABEL_WIDTH)
        largest = tl.load(maximum + pixels_before + pixel, mask=valid, other=0.0)
        weight = tl.load(factor + pixels_before + pixel, mask=valid, other=0.0)
        mean = tl.load(row_sums + pixels_before + pixel, mask=valid, other=0.0)
        places, mask = _places(area, pixel, valid, CHANNELS, CHANNEL_WIDTH)
        places += pixels_before * CHANNELS
        gradient = tl.load(into + places, mask=mask, other=0.0)
        first_row, down = _reach(top, rows, radius, SIDE)
        first_column, across = _reach(left, columns, radius, SIDE)
        for other in range(slot, slots):
            count = tl.where(tl.load(element_steps + other) == group, down * across, 0)
            keys_before = (element.to(tl.int64) * slots + other) * area
            for start in range(0, count, BLOCK):
                at = start + tl.arange(0, BLOCK)
                key_row, key_column = first_row + at // across, first_column + at % across
                key_pixel = (phase_y + key_row * step) * width + phase_x + key_column * step
                key = _features(keys + keys_before * CHANNELS, key_pixel, at < count, CHANNELS, CHANNEL_WIDTH)
                value = _maps(values + keys_before * LABELS, area, key_pixel, at < count, LABELS, LABEL_WIDTH)
                inside = _in_window(row, column, key_row, key_column, at < count, radius)
                logits = scale * tl.dot(features, tl.trans(key), input_precision=LOGIT_PRECISION)
                weights = tl.where(inside, tl.exp2(logits - largest[:, None]) * weight[:, None], 0.0)
                by_value = tl.dot(toward, tl.trans(value), input_precision=PRECISION)
                logit_grads = weights * (by_value - mean[:, None])
                gradient = tl.dot(logit_grads, key, gradient, input_precision=PRECISION)
        tl.store(into + places, gradient, mask=mask)


@triton.jit
def memory_gradients(
    query, keys, values, steps, maximum, factor, grad, row_sums, into_keys, into_values,
    slots, height, width, radius, scale, key_scale, programs,
    CHANNELS: tl.constexpr, CHANNEL_WIDTH: tl.constexpr, LABELS: tl.constexpr, LABEL_WIDTH: tl.constexpr,
    FOR_KEYS: tl.constexpr, FOR_VALUES: tl.constexpr,
    SIDE: tl.constexpr, BLOCK: tl.constexpr, LOGIT_PRECISION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For tiles of keys, gather the gradients from all queries whose windows contain them; 0 in empty slots."""
    slot = tl.program_id(0) // programs  # of all slots of all elements
    given = tl.load(steps + slot)
    step = tl.minimum(tl.maximum(given, 1), tl.maximum(height, width))
    area = height * width
    keys_before = slot.to(tl.int64) * area
    pixels_before = (slot // slots).to(tl.int64) * area
    for tile in range(tl.program_id(0) % programs, _num_tiles(step, height, width, SIDE), programs):
        phase_y, phase_x, rows, columns, top, left = _tile(tile, step, height, width, SIDE)
        row = top + tl.arange(0, SIDE * SIDE) // SIDE
        column = left + tl.arange(0, SIDE * SIDE) % SIDE
        valid = (row < rows) & (column < columns)
        pixel = (phase_y + row * step) * width + phase_x + column * step
        filled = (row < tl.where(given > 0, rows, 0)) & (column < columns)
        key = _features(keys + keys_before * CHANNELS, pixel, filled, CHANNELS, CHANNEL_WIDTH)
        value = _maps(values + keys_before * LABELS, area, pixel, filled, LABELS, LABEL_WIDTH)
        key_gradient = tl.zeros((SIDE * SIDE, CHANNEL_WIDTH), tl.float32)
        value_gradient = tl.zeros((SIDE * SIDE, LABEL_WIDTH), tl.float32)
        first_row, down = _reach(top, rows, radius, SIDE)
        first_column, across = _reach(left, columns, radius, SIDE)
        count = tl.where(given > 0, down * across, 0)
        for start in range(0, count, BLOCK):
            at = start + tl.arange(0, BLOCK)
            some = at < count
            query_row, query_column = first_row + at // across, first_column + at % across
            query_pixel = (phase_y + query_row * step) * width + phase_x + query_column * step
            features = _features(query + pixels_before * CHANNELS, query_pixel, some, CHANNELS, CHANNEL_WIDTH)
            toward = _maps(grad + pixels_before * LABELS, area, query_pixel, some, LABELS, LABEL_WIDTH)
            largest = tl.load(maximum + pixels_before + query_pixel, mask=some, other=0.0)
            weight = tl.load(factor + pixels_before + query_pixel, mask=some, other=0.0)
            inside = _in_window(row, column, query_row, query_column, some, radius)
            logits = scale * tl.dot(key, tl.trans(features), input_precision=LOGIT_PRECISION)
            weights = tl.where(inside, tl.exp2(logits - largest[None, :]) * weight[None, :], 0.0)
            if FOR_VALUES:
                value_gradient = tl.dot(weights, toward, value_gradient, input_precision=PRECISION)
            if FOR_KEYS:
                mean = tl.load(row_sums + pixels_before + query_pixel, mask=some, other=0.0)
                by_value = tl.dot(value, tl.trans(toward), input_precision=PRECISION)
                logit_grads = weights * (by_value - mean[None, :])
                key_gradient = tl.dot(logit_grads, features, key_gradient, input_precision=PRECISION)
        if FOR_KEYS:
            places, mask = _places(area, pixel, valid, CHANNELS, CHANNEL_WIDTH)
            tl.store(into_keys + keys_before * CHANNELS + places, key_gradient * key_scale, mask=mask)
        if FOR_VALUES:
            places, mask = _places(area, pixel, valid, LABELS, LABEL_WIDTH)
            tl.store(into_values + keys_before * LABELS + places, value_gradient, mask=mask)
