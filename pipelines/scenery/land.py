"""Land: from a relief, a light and a biome to the still part of a picture and its mirror in water.

Letters: K depths, I columns, H and W of the picture, N trees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.light import Light, mix, sky_colour, smoothstep
from pipelines.scenery.terrain import Camera, Ground, Relief, reduce_image, shade, survey, view
from pipelines.scenery.trees import Trees, draw_trees

__all__ = ["BIOMES", "Biome", "Land", "choose_biome", "compose_land"]

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Biome:
    """Colours (albedo, linear) and plants of a country; heights in metres."""

    name: str
    grass: Colour
    meadow: Colour  # second ground colour, in patches
    rock: Colour
    shore: Colour
    leaf: Colour
    snowline: float = 1e9
    trees: int = 2500
    treeline: float = 1e9
    tall: float = 13.0
    broad: float = 0.0  # share of broad crowns
    rockiness: float = 0.30  # slope at which rock shows: smaller is rockier


BIOMES: dict[str, Biome] = {
    "alpine": Biome(
        name="alpine",
        grass=(0.085, 0.115, 0.040),
        meadow=(0.15, 0.16, 0.065),
        rock=(0.25, 0.235, 0.22),
        shore=(0.27, 0.25, 0.215),
        leaf=(0.030, 0.058, 0.030),
        snowline=230.0,
        treeline=190.0,
        trees=3800,
    ),
    "boreal": Biome(
        name="boreal",
        grass=(0.075, 0.09, 0.04),
        meadow=(0.16, 0.12, 0.06),
        rock=(0.21, 0.20, 0.195),
        shore=(0.20, 0.18, 0.15),
        leaf=(0.026, 0.050, 0.032),
        trees=7000,
        tall=15.0,
        rockiness=0.36,
    ),
    "summer": Biome(
        name="summer",
        grass=(0.10, 0.16, 0.035),
        meadow=(0.20, 0.22, 0.07),
        rock=(0.28, 0.25, 0.21),
        shore=(0.32, 0.27, 0.20),
        leaf=(0.055, 0.105, 0.022),
        trees=2400,
        broad=0.9,
        tall=12.0,
        rockiness=0.42,
    ),
    "autumn": Biome(
        name="autumn",
        grass=(0.17, 0.13, 0.045),
        meadow=(0.26, 0.18, 0.06),
        rock=(0.24, 0.21, 0.19),
        shore=(0.26, 0.22, 0.17),
        leaf=(0.30, 0.115, 0.022),
        trees=4200,
        broad=0.65,
        rockiness=0.40,
    ),
    "desert": Biome(
        name="desert",
        grass=(0.40, 0.235, 0.13),
        meadow=(0.48, 0.31, 0.17),
        rock=(0.44, 0.215, 0.115),
        shore=(0.46, 0.33, 0.20),
        leaf=(0.10, 0.115, 0.05),
        trees=350,
        broad=0.95,
        tall=4.0,
        rockiness=0.22,
    ),
    "volcanic": Biome(
        name="volcanic",
        grass=(0.075, 0.085, 0.035),
        meadow=(0.10, 0.115, 0.035),
        rock=(0.075, 0.07, 0.07),
        shore=(0.055, 0.052, 0.052),
        leaf=(0.05, 0.08, 0.025),
        trees=0,
        snowline=330.0,
        rockiness=0.20,
    ),
    "winter": Biome(
        name="winter",
        grass=(0.62, 0.66, 0.72),
        meadow=(0.70, 0.72, 0.76),
        rock=(0.20, 0.20, 0.215),
        shore=(0.42, 0.44, 0.47),
        leaf=(0.045, 0.065, 0.055),
        trees=4200,
        snowline=0.0,
        rockiness=0.36,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Land:
    """The still part of a picture, linear, and what a fluid needs to lie in it."""

    camera: Camera
    light: Light
    still_HW3: Floats  # sky and land; under water its own dark bed
    sky_HW3: Floats
    mirror_HW3: Floats  # what a flat water surface shows at each pixel
    water_HW: Floats  # share of the pixel that is water
    sky_share_HW: Floats
    fine_depth: Floats  # metres, 0 in the sky, at `factor` times the picture's size
    factor: int
    bed_HW: Floats  # metres of water under a water pixel, 0 elsewhere

    def share_beyond(self, distance: float) -> Floats:
        """How much of each pixel is sky or lies farther away than `distance` metres, (H, W)."""
        free = (self.fine_depth == 0.0) | (self.fine_depth >= distance)
        return reduce_image(free.astype(np.float32), self.factor)


def _albedo(ground: Ground, biome: Biome, seed: int) -> Floats:
    x, z, y = ground.x_KI, ground.z_KI, ground.height_KI
    foot = z / ground.camera.focal_px
    patches = noise.fractal(x / 60.0, z / 60.0, seed=seed + 11, octaves=6, footprint=foot / 60.0)
    fine = noise.fractal(x / 2.5, z / 2.5, seed=seed + 12, octaves=5, gain=0.65, footprint=foot / 2.5)
    strata = noise.fractal(x / 70.0, y / 5.0, seed=seed + 13, octaves=5, gain=0.6, footprint=foot / 9.0)
    slope = 1.0 - ground.normal_KI3[..., 1]

    def flat(colour: Colour) -> Floats:
        return np.broadcast_to(np.array(colour, np.float32), (*x.shape, 3))

    soil = mix(flat(biome.grass), flat(biome.meadow), smoothstep(-0.25, 0.45, patches + 0.3 * fine))
    rock = flat(biome.rock) * (1.0 + 0.45 * strata + 0.25 * fine)[..., None]
    bare = smoothstep(biome.rockiness - 0.10, biome.rockiness + 0.10, slope + 0.13 * patches + 0.10 * fine)
    colour = mix(soil * (1.0 + 0.30 * fine)[..., None], rock, bare)
    beach = smoothstep(2.2, 0.6, ground.raw_KI + 0.8 * patches) * (1.0 - 0.6 * bare)
    colour = mix(colour, flat(biome.shore) * (1.0 + 0.35 * fine)[..., None], beach)
    wet = smoothstep(0.5, 0.1, ground.raw_KI)
    colour = colour * (1.0 - 0.45 * wet)[..., None]
    snow = smoothstep(-30.0, 40.0, y - biome.snowline + 45.0 * patches) * smoothstep(
        0.52, 0.30, slope + 0.1 * fine
    )
    white = flat((0.82, 0.85, 0.90)) * (1.0 + 0.06 * fine)[..., None]
    return mix(np.maximum(colour, 0.004), white, snow * (1.0 - 0.7 * beach))


def _plant(ground: Ground, biome: Biome, light: Light, seed: int, clear: Floats) -> Trees:
    """Choose where trees stand: in groves, off steep ground, above the shore, below the treeline."""
    rng = np.random.default_rng([seed, 77])
    depths, columns = ground.raw_KI.shape
    tries = biome.trees * 5
    # Uniform in the picture rather than on the ground: distant woods are as dense as near ones.
    k = (rng.random(tries) ** 0.8 * (depths - 2)).astype(int)
    i = rng.integers(0, columns, tries)
    raw, slope = ground.raw_KI[k, i], 1.0 - ground.normal_KI3[k, i, 1]
    x, z = ground.x_KI[k, i], ground.z_KI[k, i]
    grove = noise.fractal(x / 45.0, z / 45.0, seed=seed + 21, octaves=4)
    chance = smoothstep(-0.2, 0.35, grove) + 0.06
    chance = chance * smoothstep(0.45, 0.25, slope) * smoothstep(0.8, 2.5, raw) * clear[k, i]
    chance = chance * smoothstep(biome.treeline, biome.treeline * 0.7, raw) * (z > 30.0) * (z < 2600.0)
    keep = np.nonzero(rng.random(tries) < chance)[0][: biome.trees]
    keep = keep[np.argsort(-z[keep], kind="stable")]
    count = keep.size
    tone = np.exp(rng.normal(0.0, 0.22, (count, 1)) + rng.normal(0.0, 0.10, (count, 3)))
    leaf = np.array(biome.leaf, np.float32) * tone
    if biome.name == "autumn":
        green = rng.random(count)[:, None] < 0.35
        leaf = np.where(green, np.array((0.06, 0.085, 0.03)) * tone, leaf)
    veil = (1.0 - np.exp(-z[keep] / light.visibility))[:, None]
    air = np.array(light.haze)
    lit = ground.lit_KI[k, i][keep][:, None] * 0.85 + 0.15
    sunny = leaf * (np.array(light.sun) * 0.85 * lit + np.array(light.ambient))
    shady = leaf * np.array(light.ambient) * 0.55
    snow = 0.0 if biome.name != "winter" else 0.35
    sunny = sunny * (1 - snow) + snow * 0.8 * (np.array(light.sun) * 0.4 * lit + np.array(light.ambient))
    return Trees(
        right_N=x[keep],
        depth_N=z[keep],
        foot_N=raw[keep],
        tall_N=(biome.tall * np.exp(rng.normal(0.0, 0.28, count))).astype(np.float32),
        round_N=(rng.random(count) < biome.broad).astype(np.float32),
        bright_N3=(sunny * (1 - veil) + air * veil).astype(np.float32),
        dark_N3=(shady * (1 - veil) + air * veil).astype(np.float32),
    )


def choose_biome(rng: np.random.Generator, names: tuple[str, ...]) -> Biome:
    """One of the named biomes, with its colours, plants and snow varied."""
    biome = BIOMES[names[int(rng.integers(len(names)))]]
    tone = np.exp(rng.normal(0.0, 0.05, (5, 3)) + rng.normal(0.0, 0.15, (5, 1)))

    def vary(colour: Colour, index: int) -> Colour:
        r, g, b = (float(c * t) for c, t in zip(colour, tone[index], strict=True))
        return (r, g, b)

    return replace(
        biome,
        grass=vary(biome.grass, 0),
        meadow=vary(biome.meadow, 1),
        rock=vary(biome.rock, 2),
        shore=vary(biome.shore, 3),
        leaf=vary(biome.leaf, 4),
        trees=int(biome.trees * rng.uniform(0.08, 1.1)),
        tall=biome.tall * float(rng.uniform(0.7, 1.15)),
        broad=min(1.0, biome.broad * float(rng.uniform(0.6, 1.3))),
        snowline=biome.snowline * float(rng.uniform(0.7, 1.3)),
    )


def compose_land(  # noqa: PLR0913 - a picture needs all of these
    camera: Camera,
    relief: Relief,
    light: Light,
    biome: Biome,
    *,
    seed: int,
    wisps: float = 0.5,
    clear: Relief | None = None,
    focus: tuple[float, float] | None = None,
) -> Land:
    """Draw sky, relief and trees, and their mirror. Trees keep away where `clear` is 0."""
    factor = 2 if camera.size[0] <= 800 else 1
    fine = camera.larger(factor)
    ground = survey(fine, relief, light, depths=600 if camera.size[0] <= 800 else 900, focus=focus)
    colours = shade(ground, _albedo(ground, biome, seed), light)
    seen = view(ground)
    y, x = np.mgrid[0 : fine.size[0], 0 : fine.size[1]]
    right, up = (v.astype(np.float32) for v in fine.directions(x, y))
    sky = sky_colour(right, np.maximum(up, 0.0), light, seed=seed, wisps=wisps)
    picture = seen.gather(colours, fill=sky)
    # The face between a wet and a dry sample is dry: depth under water must not reach up into it.
    measures = np.stack([ground.z_KI, np.maximum(ground.raw_KI, -0.02), ground.raw_KI], axis=-1)
    measured = seen.gather(measures)
    depth, edge, raw = (np.ascontiguousarray(measured[..., c]) for c in range(3))
    water = ((depth > 0.0) & (edge <= 0.0)).astype(np.float32)
    overhead = sky_colour(right, np.maximum(-up, 0.0), light, seed=seed, wisps=wisps * 0.6)
    mirror = seen.gather(colours, mirrored=True, fill=overhead)
    if biome.trees:
        open_KI = (
            np.ones_like(ground.raw_KI) if clear is None else clear(ground.x_KI, ground.z_KI, ground.z_KI)
        )
        trees = _plant(ground, biome, light, seed, open_KI)
        side = float(np.sign(light.sun_right))
        bare_depth = depth.copy()
        draw_trees(trees, fine, picture, depth, lit_side=side, mirrored=False)
        draw_trees(trees, fine, mirror, np.zeros_like(depth), lit_side=side, mirrored=True)
        water = np.where(depth == bare_depth, water, 0.0).astype(np.float32)
    return Land(
        camera=camera,
        light=light,
        still_HW3=reduce_image(picture, factor),
        sky_HW3=reduce_image(sky, factor),
        mirror_HW3=reduce_image(mirror, factor),
        water_HW=reduce_image(water, factor),
        sky_share_HW=reduce_image((depth == 0.0).astype(np.float32), factor),
        fine_depth=depth,
        factor=factor,
        bed_HW=reduce_image(np.maximum(-raw, 0.0) * water, factor),
    )
