"""More readers: of compressed images and of programs; and all of them, see file_readers."""

import torch
from support import lossless_files, mutations, program_files
from support.file_readers import GREY, MODELS, READERS, SIDE, Reader, register
from support.pixel_programs import CASES

from genfast import models, tasks
from genfast.engine.coding import Coder
from genfast.engine.compiled import Compiled
from genfast.engine.program_file import read_program, write_program
from genfast.tasks._codes import HEADER

__all__ = ["READERS"]
MOST = 2**21
LOSSLESS = {"height": 4, "width": 4, "levels": 5}
LOSSLESS_MODELS = {
    "gated-pixelcnn": LOSSLESS | {"hidden": 3, "layers": 1, "head": 3, "classes": 3},
    "pixelcnn++": LOSSLESS | {"channels": 3, "filters": 2, "blocks": 1, "resolutions": 2, "mixtures": 2},
    "vae": LOSSLESS | {"latent": 2, "hidden": 3, "layers": 1, "mixtures": 2, "classes": 2},
}


@register
class Compressed(Reader):
    name = "compressed"

    def make(self):
        torch.manual_seed(0)
        self.model = models.build("vq-vae", height=SIDE, width=SIDE, levels=2, **MODELS["vq-vae"]).eval()
        images = torch.from_numpy(GREY)[:, None]
        self.seeds = {
            f"{n}.gfz": tasks.compress(self.model, images[:n].repeat(times, 1, 1, 1))
            for n, times in ((3, 1), (1, 500), (40, 10))
        }

    def mutate(self, name, data, rng):
        header = list(HEADER.unpack_from(data))
        body = data[HEADER.size : -4]
        for place, most in ((2, 255), (3, 2**32 - 1), (5, 2**16 - 1), (6, 2**16 - 1)):
            if rng.random() < 0.3:
                header[place] = rng.choice((0, 1, 2, 3, 4, 5, 6, 100, 4096, most, rng.randint(0, most))) % (most + 1)
        body = mutations.damaged(body, rng) if rng.random() < 0.3 else body
        data = HEADER.pack(*header) + body + data[-4:]
        data = mutations.damaged(data, rng) if rng.random() < 0.3 else data
        return mutations.signed(data) if rng.random() < 0.8 and len(data) > 4 else data

    def read(self, path):
        return tasks.decompress(path.read_bytes(), self.model, max_bytes=2**28).numel()


@register
class Lossless(Reader):
    """Files with their program and without, with labels, and of images that are larger than the model's."""

    name = "lossless"
    weight = 2.0

    def make(self):
        self.models = {
            kind: lossless_files.fixed(models.build(kind, **LOSSLESS_MODELS[kind])) for kind in LOSSLESS_MODELS
        }
        for kind, model in self.models.items():
            for side in (4, 5):
                labels = torch.arange(7) % model.spec.classes if model.spec.classes else None
                for place in ("alone", "inside") if kind != "vae" else ("alone",):
                    options = {"labels": labels, "block": 3, "with_model": place == "inside"}
                    self.seeds[f"{kind}/{side}/{place}.gfz"] = tasks.compress(model, self.images(kind, side), **options)

    def images(self, kind, side):
        channels = self.models[kind].spec.channels
        return (torch.arange(7 * channels * side * 4) % 5).to(torch.uint8).view(7, channels, side, 4)

    def mutate(self, name, data, rng):
        if rng.random() < 0.2:
            return mutations.damaged(data, rng)
        parts = lossless_files.Parts.of(data)
        if parts.program and rng.random() < 0.5 and self.is_of_another_program(parts, rng) and rng.random() < 0.5:
            return parts.file()
        return lossless_files.mutated(parts, rng)

    def is_of_another_program(self, parts, rng):
        """Put another program into a file, with all that tells it from the first one; whether that is one."""
        value, constants = program_files.mutated(*program_files.structure_of(parts.program), rng)
        parts.program = program_files.header_of(value, constants) + program_files.packed(value, constants)
        try:
            coder = Coder(read_program(parts.program, max_bytes=MOST))
        except ValueError:
            return False
        spec = coder.spec
        of_spec = (spec.channels, spec.height, spec.width, spec.levels, spec.classes)
        parts.numbers |= zip(lossless_files.FIELDS[3:8], of_spec)
        structure, constants = coder.fingerprints()
        parts.fixed[4:6] = structure[:4], constants[:8]
        if coder.memory(parts.get("tile")) < MOST:
            parts.fixed[6] = coder.probe()[:4]
        return True

    def read(self, path):
        data, kind, side = path.read_bytes(), *path.parts[-3:-1]
        model = None if path.stem == "inside" else self.models[kind]
        tasks.file_info(data)
        images = tasks.decompress(data, model, max_bytes=MOST)
        if not torch.equal(images, self.images(kind, int(side))[: len(images)]) and len(images):
            raise AssertionError("other images")
        return images.numel() * images.element_size()


@register
class Programs(Reader):
    """A program that is read is run: it must stay inside its memory."""

    name = "programs"

    def make(self):
        programs = [program_files.alone(case) for case in CASES]
        self.seeds = {f"{n}.gfpp": write_program(Compiled(p, p.spec)) for n, p in enumerate(programs)}

    def mutate(self, name, data, rng):
        if rng.random() < 0.1:
            return mutations.damaged(data, rng)
        value, constants = program_files.mutated(*program_files.structure_of(data), rng)
        value = mutations.json_text(value, rng) if rng.random() < 0.05 else value
        return program_files.header_of(value, constants) + program_files.packed(value, constants)

    def read(self, path):
        program_files.draw(read_program(path.read_bytes(), max_bytes=2**27))
