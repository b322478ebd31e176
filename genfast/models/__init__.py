"""Generative models, by name: `build("pixelrnn", hidden=32)`, `load("RUN/model")`."""

from genfast.models._pretrained import local_folder, read_config
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig
from genfast.models.dcgan import DCGAN, DCGANConfig
from genfast.models.gan import GAN, GANConfig
from genfast.models.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNConfig
from genfast.models.iwae import IWAE, IWAEConfig
from genfast.models.pix2pix import Pix2Pix, Pix2PixConfig
from genfast.models.pixelcnn import PixelCNN, PixelCNNConfig
from genfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus, PixelCNNPlusPlusConfig
from genfast.models.pixelrnn import PixelRNN, PixelRNNConfig
from genfast.models.projection_gan import ProjectionGAN, ProjectionGANConfig
from genfast.models.r3gan import R3GAN, R3GANConfig
from genfast.models.sngan import SNGAN, SNGANConfig
from genfast.models.vae import VAE, VAEConfig
from genfast.models.vqvae import VQVAE, VQVAEConfig
from genfast.models.wgan_gp import WGANGP, WGANGPConfig

MODELS = {
    "pixelrnn": (PixelRNN, PixelRNNConfig),
    "pixelcnn": (PixelCNN, PixelCNNConfig),
    "gated-pixelcnn": (GatedPixelCNN, GatedPixelCNNConfig),
    "pixelcnn++": (PixelCNNPlusPlus, PixelCNNPlusPlusConfig),
    "vae": (VAE, VAEConfig),
    "iwae": (IWAE, IWAEConfig),
    "vq-vae": (VQVAE, VQVAEConfig),
    "dcgan": (DCGAN, DCGANConfig),
    "sngan": (SNGAN, SNGANConfig),
    "wgan-gp": (WGANGP, WGANGPConfig),
    "r3gan": (R3GAN, R3GANConfig),
    "projection-gan": (ProjectionGAN, ProjectionGANConfig),
    "pix2pix": (Pix2Pix, Pix2PixConfig),
}


def build(name, **config):
    """A new model of the registry `MODELS` from the fields of its config."""
    if name not in MODELS:
        raise ValueError(f"build: expected one of {sorted(MODELS)}; got {name!r}")
    model, config_type = MODELS[name]
    return model(config_type(**config))


def load(folder):
    """The model of a folder or Hub model id, whichever of `MODELS` it is."""
    folder = local_folder(folder)
    name = read_config(folder)["model"]
    if name not in MODELS:
        raise ValueError(f"{folder}/config.json: expected a model of {sorted(MODELS)}; got {name!r}")
    return MODELS[name][0].from_pretrained(folder)


__all__ = [
    "IWAE",
    "MODELS",
    "VAE",
    "VQVAE",
    "Autoregressive",
    "AutoregressiveConfig",
    "GatedPixelCNN",
    "GatedPixelCNNConfig",
    "IWAEConfig",
    "Pix2Pix",
    "Pix2PixConfig",
    "PixelCNN",
    "PixelCNNConfig",
    "PixelCNNPlusPlus",
    "PixelCNNPlusPlusConfig",
    "PixelRNN",
    "PixelRNNConfig",
    "VAEConfig",
    "VQVAEConfig",
    "build",
    "load",
    "DCGAN",
    "DCGANConfig",
    "GAN",
    "GANConfig",
    "ProjectionGAN",
    "ProjectionGANConfig",
    "R3GAN",
    "R3GANConfig",
    "SNGAN",
    "SNGANConfig",
    "WGANGP",
    "WGANGPConfig",
]
