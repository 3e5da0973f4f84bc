from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.distributed_sampler import RepeatAugSampler

from vitreous.data.augment import DRAWS, augment
from vitreous.data.augmentation import Augmentation
from vitreous.data.crops import random_crop
from vitreous.data.datasets import open_dataset
from vitreous.data.erasing import erase
from vitreous.data.labelled import LabelledImages
from vitreous.data.mixing import mix
from vitreous.data.order import Draws, epoch_order, uniform
from vitreous.data.policies import apply_policy
from vitreous.data.preprocess import Preprocess
from vitreous.data.training_batches import (
    MIXING,
    BatchPlan,
    TrainingBatch,
    TrainingImages,
    _made,
    places_of_part,
    steps_of_epoch,
    training_batches,
    training_images,
)
from vitreous.data.transforms import normalise, to_pixels
from vitreous.errors import InputError, WorkerError
from vitreous.training.recipes import digits

PREPROCESS = Preprocess((12, 10), "squash", 1.0, "bilinear")

EVERYTHING = Augmentation(
    crop="resized", flip=True, policy="randaugment", shift=1.0, rotation=5.0, scale=0.1, erasing=0.4,
    mixup=0.8, cutmix=1.0, mix_probability=0.9, repeats=3,
)  # fmt: skip

SETTINGS = {
    "nothing": Augmentation(),
    "flip": Augmentation(flip=True),
    "moved": Augmentation(shift=2.0, rotation=8.0, scale=0.1, flip=True),
    "cropped": Augmentation(crop="resized", flip=True),
    "a policy": Augmentation(flip=True, policy="trivialaugment"),
    "DeiT's": replace(EVERYTHING, shift=0.0, rotation=0.0, scale=0.0),
    "everything": EVERYTHING,
}


@dataclass
class Drawn:
    """Reads pictures of several sizes; remembers which, and cannot read some."""

    unreadable: tuple[int, ...] = ()
    asked: list[int] = field(default_factory=list)

    def __call__(self, index: int) -> Image.Image:
        self.asked.append(index)
        if index in self.unreadable:
            raise InputError(f"picture {index} is broken")
        size = (14 + index % 5, 12 + index % 7, 3)
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8))


def data(images: int = 23, unreadable: tuple[int, ...] = ()) -> LabelledImages:
    names = tuple(f"image {index}" for index in range(images))
    labels = tuple(index % 4 for index in range(images))
    return LabelledImages("drawn", "train", ("a", "b", "c", "d"), labels, names, Drawn(unreadable))


def plan(augmentation: Augmentation = EVERYTHING, **changes: Any) -> BatchPlan:
    settings: dict[str, Any] = {"classes": 4, "seed": 5, "batch_size": 6, "label_smoothing": 0.1} | changes
    return BatchPlan(PREPROCESS, augmentation, **settings)


def batches(images: TrainingImages, of: BatchPlan, **options: Any) -> list[TrainingBatch]:
    with training_batches(images, of, **({"epoch": 1} | options)) as made:
        return list(made)


def same(first: Sequence[TrainingBatch], second: Sequence[TrainingBatch]) -> bool:
    return len(first) == len(second) and all(
        (one.epoch, one.step, one.part, one.whole, one.unread) == (two.epoch, two.step, two.part, two.whole, two.unread)
        and torch.equal(one.samples, two.samples)
        and torch.equal(one.images, two.images)
        and torch.equal(one.targets, two.targets)
        for one, two in zip(first, second, strict=True)
    )


def slow_batch(images: LabelledImages, of: BatchPlan, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One image after the other, in the order of the settings, and then the whole batch mixed."""
    settings, order = of.augmentation, epoch_order(len(images), seed=of.seed, epoch=epoch).tolist()
    turns = [(sample, repeat) for sample in order for repeat in range(settings.repeats)][: len(order)]
    inputs, labels = [], []
    for sample, repeat in turns[step * of.batch_size : (step + 1) * of.batch_size]:
        draws = Draws(of.seed, epoch, sample, repeat)
        numbers = uniform(torch.tensor([sample + repeat * len(images)]), DRAWS, seed=of.seed, epoch=epoch)
        image = images.read(sample)
        if settings.crop == "resized":
            pixels = random_crop(image, of.preprocess, draws, area=settings.crop_area, ratio=settings.crop_ratio)
        else:
            pixels = to_pixels(image, of.preprocess)
        moves = {"shift": settings.shift, "rotation": settings.rotation, "scale": settings.scale}
        if settings.flip and not any(moves.values()) and numbers[0, 4] < 0.5:
            pixels = pixels.flip(-1)
        picture = apply_policy(Image.fromarray(pixels.permute(1, 2, 0).numpy()), settings, draws)
        changed = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        if any(moves.values()):
            changed = augment(changed, numbers, **moves, flip=settings.flip)
        inputs.append(erase(normalise(changed, of.preprocess)[0], draws, share=settings.erasing))
        labels.append(images.labels[sample])
    together = torch.stack(inputs), torch.tensor(labels)
    if not settings.mixup and not settings.cutmix:
        return together
    mixing = Draws(of.seed, epoch, step, MIXING)
    options: dict[str, Any] = {"classes": of.classes, "settings": settings, "smoothing": of.label_smoothing}
    return mix(*together, **options, draws=mixing)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_batches_equal_a_slow_loop(settings: Augmentation) -> None:
    images, of = data(), plan(settings)
    for step, batch in enumerate(batches(training_images(images, of), of)):
        inputs, targets = slow_batch(images, of, 1, step)
        assert batch.step == step and batch.whole == len(batch.samples) == len(inputs)
        assert torch.equal(batch.images, inputs)
        assert torch.equal(batch.targets, targets)


def test_digits_are_changed_as_they_always_were() -> None:
    config, images = digits(), open_dataset("digits", "train")
    labels = torch.tensor(images.labels)
    pixels = torch.stack([images.pixels(n, config.preprocess) for n in range(len(images))])
    of = BatchPlan(config.preprocess, config.augmentation, 10, seed=0, batch_size=32, label_smoothing=0.05)
    made = batches(training_images(images, of), of, epoch=3)
    order = torch.split(epoch_order(len(images), seed=0, epoch=3), 32)
    for samples, batch in zip(order, made, strict=True):
        numbers = uniform(samples, DRAWS, seed=0, epoch=3)
        changed = augment(pixels[samples].float() / 255, numbers, shift=1.5, rotation=8.0, scale=0.1)
        assert torch.equal(batch.samples, samples)
        assert torch.equal(batch.images, normalise(changed, config.preprocess))
        assert torch.equal(batch.targets, labels[samples])
    assert len(made) == 45 and len(made[-1].samples) == 29


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 3), (3, 2), (1, 2), (4, 1)])
def test_any_number_of_processes_and_parts_makes_the_same_bits(
    settings: Augmentation, world: int, accumulate: int
) -> None:
    images = data()
    whole = batches(training_images(images, plan(settings)), plan(settings))
    parts = world * accumulate
    shares = [replace(plan(settings), world=world, accumulate=accumulate, rank=rank) for rank in range(world)]
    of_ranks = [batches(TrainingImages(images), share) for share in shares]
    for made in of_ranks:
        assert [(batch.step, batch.part) for batch in made] == [(s, p) for s in range(4) for p in range(accumulate)]
    for step, batch in enumerate(whole):
        for part in range(parts):
            one = of_ranks[part // accumulate][step * accumulate + part % accumulate]
            places = places_of_part(batch.whole, part, parts)
            assert one.whole == batch.whole
            assert torch.equal(one.samples, batch.samples[places])
            assert torch.equal(one.images, batch.images[places])
            assert torch.equal(one.targets, batch.targets[places])


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_makes_the_same_bits(workers: int) -> None:
    images = data()
    for settings in (EVERYTHING, SETTINGS["moved"]):
        alone = batches(training_images(images, plan(settings)), plan(settings))
        assert same(batches(training_images(images, plan(settings)), plan(settings, workers=workers)), alone)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_pictures_in_memory_make_the_same_bits_as_pictures_decoded_each_time(settings: Augmentation) -> None:
    images, of = data(), plan(settings)
    kept = training_images(images, of)
    asked = len(images.read.asked)
    from_memory = batches(kept, of)
    assert len(images.read.asked) == asked
    assert same(from_memory, batches(TrainingImages(images), of))


def test_a_start_in_the_middle_makes_the_rest_and_nothing_before() -> None:
    images, of = data(), plan(replace(EVERYTHING, repeats=1), accumulate=2)
    whole = batches(TrainingImages(images), of)
    images.read.asked.clear()
    rest = batches(TrainingImages(images), of, first_step=2)
    assert same(rest, whole[4:])
    assert sorted(images.read.asked) == sorted(torch.cat([batch.samples for batch in whole[4:]]).tolist())


def test_an_epoch_ends_at_the_step_that_is_asked_for() -> None:
    images = data()
    assert [batch.step for batch in batches(TrainingImages(images), plan(), first_step=1, steps=3)] == [1, 2]
    assert [batch.step for batch in batches(TrainingImages(images), plan(), steps=99)] == [0, 1, 2, 3]
    assert batches(TrainingImages(images), plan(), first_step=4) == []


def test_every_epoch_and_every_seed_differ_and_each_comes_again() -> None:
    images = TrainingImages(data())
    made = [batches(images, of, epoch=epoch) for of, epoch in ((plan(), 0), (plan(), 1), (plan(seed=6), 0))]
    for number, one in enumerate(made):
        for two in made[number + 1 :]:
            assert not any(torch.equal(a.images, b.images) for a, b in zip(one, two, strict=True))
    assert same(made[0], batches(images, plan(), epoch=0))


def test_an_epoch_has_every_image_once_and_a_smaller_last_batch() -> None:
    made = batches(TrainingImages(data()), plan(Augmentation()))
    assert torch.cat([batch.samples for batch in made]).sort().values.tolist() == list(range(23))
    assert [len(batch.samples) for batch in made] == [6, 6, 6, 5]
    assert steps_of_epoch(23, 6) == 4 and steps_of_epoch(24, 6) == 4 and steps_of_epoch(5, 6) == 1
    assert all(batch.targets.tolist() == [sample % 4 for sample in batch.samples.tolist()] for batch in made)


@pytest.mark.parametrize("repeats", [2, 3, 4])
def test_repeats_come_in_the_order_of_timms_sampler(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, of = data(), plan(replace(EVERYTHING, repeats=repeats))
    made = batches(TrainingImages(images), of)
    order = epoch_order(23, seed=of.seed, epoch=1)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: order)
    ranks = [list(RepeatAugSampler(range(23), 2, rank, num_repeats=repeats)) for rank in range(2)]
    theirs = [ranks[place % 2][place // 2] for place in range(23)]  # each of two processes takes every other one
    assert torch.cat([batch.samples for batch in made]).tolist() == theirs


def test_a_repeated_image_is_changed_anew_each_time() -> None:
    for settings in (Augmentation(shift=3.0, repeats=3), Augmentation(crop="resized", repeats=3)):
        batch = batches(TrainingImages(data()), plan(settings))[0]
        assert batch.samples[0] == batch.samples[1] == batch.samples[2]
        assert not torch.equal(batch.images[0], batch.images[1])
        assert not torch.equal(batch.images[1], batch.images[2])


def test_half_of_the_images_are_mirrored_and_nothing_else_is_done_to_them() -> None:
    images = data(200)
    mirrored = 0
    for batch in batches(TrainingImages(images), plan(Augmentation(flip=True))):
        for sample, image in zip(batch.samples.tolist(), batch.images, strict=True):
            plain = normalise(to_pixels(images.read(sample), PREPROCESS), PREPROCESS)
            mirrored += torch.equal(image, plain.flip(-1))
            assert torch.equal(image, plain) or torch.equal(image, plain.flip(-1))
    assert mirrored == pytest.approx(100, abs=28)  # 4 standard deviations


@pytest.mark.parametrize("whole", [*range(12), 63, 64])
@pytest.mark.parametrize("parts", [1, 2, 3, 5, 16])
def test_parts_share_a_batch_in_pairs_from_both_ends(whole: int, parts: int) -> None:
    shares = [places_of_part(whole, part, parts) for part in range(parts)]
    assert sorted(place for share in shares for place in share) == list(range(whole))
    for share in shares:
        assert share == sorted(share)
        assert [whole - 1 - place for place in share] == share[::-1]
    assert max(map(len, shares)) - min(map(len, shares)) <= 2


def test_a_part_may_have_no_images() -> None:
    for settings in SETTINGS.values():
        of = plan(settings, batch_size=4, world=4)
        made = [batches(TrainingImages(data(5)), replace(of, rank=rank))[-1] for rank in range(4)]
        assert sorted(len(batch.samples) for batch in made) == [0, 0, 0, 1]
        empty = next(batch for batch in made if not len(batch.samples))
        assert empty.images.shape == (0, 3, 12, 10) and empty.images.dtype == torch.float32
        assert empty.targets.shape == ((0, 4) if settings.mixup else (0,))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("settings", [SETTINGS["moved"], SETTINGS["cropped"]], ids=["kept", "decoded"])
def test_an_unreadable_image_stops_with_its_name(settings: Augmentation, workers: int) -> None:
    images, of = data(unreadable=(8,)), plan(settings, workers=workers)
    with pytest.raises(InputError, match=r"^picture 8 is broken\nset unreadable to skip to train without such images$"):
        batches(training_images(images, of), of)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_unreadable_image_is_left_out_and_the_others_stay_as_they_are(name: str) -> None:
    settings = replace(SETTINGS[name], mixup=0.0, cutmix=0.0)
    of = plan(settings, skips_unreadable=True)
    whole = batches(training_images(data(), of), of)
    for images in (training_images(data(unreadable=(8, 3)), of), TrainingImages(data(unreadable=(8, 3)))):
        made = batches(images, of)
        for one, two in zip(made, whole, strict=True):
            kept = ~torch.isin(two.samples, torch.tensor([3, 8]))
            assert torch.equal(one.samples, two.samples[kept])
            assert torch.equal(one.images, two.images[kept])
            assert torch.equal(one.targets, two.targets[kept])
            assert [index for index, _ in one.unread] == two.samples[~kept].tolist()
            assert all(cause == f"picture {index} is broken" for index, cause in one.unread)
            assert one.whole == two.whole


def test_the_partner_of_an_unreadable_image_is_mixed_with_itself() -> None:
    settings = Augmentation(mixup=1.0)
    of = plan(settings, skips_unreadable=True, label_smoothing=0.0)
    plain = {int(batch.samples[n]): batch.images[n] for batch in batches(TrainingImages(data()), plan(Augmentation()))
             for n in range(len(batch.samples))}  # fmt: skip
    whole = batches(TrainingImages(data()), of)
    broken, partner = int(whole[0].samples[1]), int(whole[0].samples[-2])
    made = batches(TrainingImages(data(unreadable=(broken,))), of)[0]
    place = made.samples.tolist().index(partner)
    torch.testing.assert_close(made.images[place], plain[partner])
    assert made.targets[place].tolist() == pytest.approx([float(n == partner % 4) for n in range(4)])
    others = [n for n in range(6) if n not in (1, 4)]
    assert torch.equal(made.images[[n for n in range(5) if n != place]], whole[0].images[others])


def test_pixels_that_are_no_bytes_are_changed_too() -> None:
    exact = replace(PREPROCESS, resampler="torch-float")
    assert not exact.has_bytes
    for settings in SETTINGS.values():
        of = replace(plan(settings), preprocess=exact)
        images = data()
        made = batches(training_images(images, of), of)
        assert same(made, batches(TrainingImages(images), of))
        bytes_instead = batches(TrainingImages(images), replace(of, preprocess=replace(exact, resampler="torch")))
        if settings.policy == "none":  # a policy may tell apart what differs by one level
            for one, two in zip(made, bytes_instead, strict=True):
                torch.testing.assert_close(one.images, two.images, atol=0.02, rtol=0)


def test_worker_processes_can_be_given_the_work_by_pickle() -> None:
    images = training_images(data(), plan())
    work = partial(_made, images, plan())
    assert same([pickle.loads(pickle.dumps(work))((1, 2, 0))], [work((1, 2, 0))])


def test_no_global_random_number_is_drawn() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - to see that it is unused
    for workers in (0, 1):
        batches(TrainingImages(data()), plan(workers=workers), steps=2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def kill_the_worker(index: int) -> Image.Image:
    if torch.utils.data.get_worker_info() is not None and index == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    return Drawn()(index)


def test_a_lost_worker_is_named() -> None:
    images = TrainingImages(replace(data(), read=kill_the_worker))
    with pytest.raises(WorkerError, match="a process that decodes images was lost: DataLoader worker"):
        batches(images, plan(Augmentation(), workers=1))
    assert len(batches(images, plan(Augmentation()))) == 4
