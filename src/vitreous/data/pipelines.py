"""The evaluation pipelines of the sources that checkpoints come from; files that do not say get their source's."""

from __future__ import annotations

from vitreous.data.preprocess import CLIP_MEAN, CLIP_STD, HALF_MEAN, HALF_STD, Preprocess

Size = tuple[int, int]


def google(image_size: Size) -> Preprocess:
    """The ViT paper's and AugReg's: squashed without antialiasing, colours to [-1, 1].

    Source: google-research/vision_transformer, vit_jax/input_pipeline.py.
    """
    return Preprocess(image_size, "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD, "tensorflow")


def big_vision(image_size: Size) -> Preprocess:
    """big_vision's `resize(...)|value_range(-1, 1)`, of SigLIP and LiT among others: as `google`, fractions dropped.

    Its `resize_small(...)|central_crop(...)`, of the plain ViT-S/16 among others, averages areas: nothing here does.

    Source: google-research/big_vision, pp/ops_image.py and configs/proj/image_text/SigLIP_demo.ipynb.
    """
    return Preprocess(image_size, "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD, "tensorflow-bytes")


def timm_default(image_size: Size) -> Preprocess:
    """Timm's where a model says nothing: `DEFAULT_CROP_PCT`, bicubic, ImageNet's statistics.

    Source: timm 1.0, timm/data/config.py.
    """
    return Preprocess(image_size)


def torchvision(image_size: Size) -> Preprocess:
    """Weights that torchvision trained itself: 224 of 256 pixels, bilinear. Its vit_l_16 has 224 of 242.

    Source: torchvision 0.28, transforms/_presets.py and models/vision_transformer.py.
    """
    return Preprocess(image_size, "crop", 0.875, "bilinear")


def swag(image_size: Size) -> Preprocess:
    """SWAG's weights, of which torchvision's vit_h_14 is one: the shorter side kept whole, bicubic.

    Source: torchvision 0.28, models/vision_transformer.py.
    """
    return Preprocess(image_size, "crop", 1.0)


def clip(image_size: Size) -> Preprocess:
    """OpenAI's CLIP and open_clip: the shorter side kept whole, bicubic, CLIP's statistics.

    Source: openai/CLIP, clip/clip.py, `_transform`; open_clip, transform.py, `image_transform`.
    """
    return Preprocess(image_size, "crop", 1.0, "bicubic", CLIP_MEAN, CLIP_STD)


def dino(image_size: Size) -> Preprocess:
    """DINO and iBOT: 224 of 256 pixels, bicubic.

    Source: facebookresearch/dino, eval_linear.py: `Resize(256, interpolation=3)`, `CenterCrop(224)`.
    """
    return Preprocess(image_size)


def dinov2(image_size: Size) -> Preprocess:
    """DINOv2: 224 of 256 pixels, bicubic.

    Source: facebookresearch/dinov2, dinov2/data/transforms.py, `make_classification_eval_transform`.
    """
    return Preprocess(image_size)


def dinov3(image_size: Size) -> Preprocess:
    """DINOv3: squashed by torch, bilinear.

    Source: facebookresearch/dinov3, README.md, `make_transform` for weights from web images; satellite images have
    statistics of their own.
    """
    return Preprocess(image_size, "squash", 1.0, "bilinear", resampler="torch")


def msn(image_size: Size) -> Preprocess:
    """MSN: 224 of 256 pixels, bilinear.

    Source: facebookresearch/msn, linear_eval.py: `Resize(256)`, `CenterCrop(224)`.
    """
    return Preprocess(image_size, "crop", 0.875, "bilinear")


def mae(image_size: Size) -> Preprocess:
    """MAE: 224 of 256 pixels; above 224 pixels the shorter side is kept whole. Bicubic.

    Source: facebookresearch/mae, util/datasets.py, `build_transform`.
    """
    return Preprocess(image_size, "crop", 0.875 if max(image_size) <= 224 else 1.0)


def deit(image_size: Size) -> Preprocess:
    """DeiT: 224 of 256 pixels, bicubic.

    Source: facebookresearch/deit, datasets.py, `build_transform`, with its default `eval_crop_ratio`.
    """
    return Preprocess(image_size)


def deit3(image_size: Size) -> Preprocess:
    """DeiT III: the shorter side kept whole, bicubic.

    Source: facebookresearch/deit, datasets.py with `--eval-crop-ratio 1.0`, as README_revenge.md has it.
    """
    return Preprocess(image_size, "crop", 1.0)


def siglip(image_size: Size) -> Preprocess:
    """SigLIP in PyTorch: squashed, bicubic, colours to [-1, 1].

    Source: open_clip's and timm's configurations, transformers' `SiglipImageProcessor`.
    """
    return Preprocess(image_size, "squash", 1.0, "bicubic", HALF_MEAN, HALF_STD)


def vit_pytorch(image_size: Size) -> Preprocess:
    """What vit-pytorch's example does: 224 of 256 pixels, bilinear, colours left in [0, 1]. A guess for any weights.

    Source: lucidrains/vit-pytorch, examples/cats_and_dogs.ipynb; the library itself says nothing.
    """
    return Preprocess(image_size, "crop", 0.875, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
