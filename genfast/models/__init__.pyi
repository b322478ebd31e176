# Written by `make stubs`: type checkers do not see what is found at import.
from genfast.models.autoregressive import Autoregressive as Autoregressive
from genfast.models.autoregressive import AutoregressiveConfig as AutoregressiveConfig
from genfast.models.base import MODELS as MODELS
from genfast.models.base import ImageConfig as ImageConfig
from genfast.models.base import ImageModel as ImageModel
from genfast.models.base import build as build
from genfast.models.base import load as load
from genfast.models.base import register_model as register_model
from genfast.models.char_rnn import CharRNN as CharRNN
from genfast.models.char_rnn import CharRNNConfig as CharRNNConfig
from genfast.models.dcgan import DCGAN as DCGAN
from genfast.models.dcgan import DCGANConfig as DCGANConfig
from genfast.models.gan import GAN as GAN
from genfast.models.gan import GANConfig as GANConfig
from genfast.models.gated_pixelcnn import GatedPixelCNN as GatedPixelCNN
from genfast.models.gated_pixelcnn import GatedPixelCNNConfig as GatedPixelCNNConfig
from genfast.models.iwae import IWAE as IWAE
from genfast.models.iwae import IWAEConfig as IWAEConfig
from genfast.models.pix2pix import Pix2Pix as Pix2Pix
from genfast.models.pix2pix import Pix2PixConfig as Pix2PixConfig
from genfast.models.pixelcnn import PixelCNN as PixelCNN
from genfast.models.pixelcnn import PixelCNNConfig as PixelCNNConfig
from genfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus as PixelCNNPlusPlus
from genfast.models.pixelcnn_plus_plus import PixelCNNPlusPlusConfig as PixelCNNPlusPlusConfig
from genfast.models.pixelrnn import PixelRNN as PixelRNN
from genfast.models.pixelrnn import PixelRNNConfig as PixelRNNConfig
from genfast.models.pixelsnail import PixelSNAIL as PixelSNAIL
from genfast.models.pixelsnail import PixelSNAILConfig as PixelSNAILConfig
from genfast.models.projection_gan import ProjectionGAN as ProjectionGAN
from genfast.models.projection_gan import ProjectionGANConfig as ProjectionGANConfig
from genfast.models.r3gan import R3GAN as R3GAN
from genfast.models.r3gan import R3GANConfig as R3GANConfig
from genfast.models.sequence import SequenceConfig as SequenceConfig
from genfast.models.sequence import SequenceModel as SequenceModel
from genfast.models.sngan import SNGAN as SNGAN
from genfast.models.sngan import SNGANConfig as SNGANConfig
from genfast.models.vae import VAE as VAE
from genfast.models.vae import VAEConfig as VAEConfig
from genfast.models.vqvae import VQVAE as VQVAE
from genfast.models.vqvae import VQVAEConfig as VQVAEConfig
from genfast.models.wavenet import WaveNet as WaveNet
from genfast.models.wavenet import WaveNetConfig as WaveNetConfig
from genfast.models.wgan_gp import WGANGP as WGANGP
from genfast.models.wgan_gp import WGANGPConfig as WGANGPConfig

__all__ = [
    "Autoregressive",
    "AutoregressiveConfig",
    "MODELS",
    "ImageConfig",
    "ImageModel",
    "build",
    "load",
    "register_model",
    "CharRNN",
    "CharRNNConfig",
    "DCGAN",
    "DCGANConfig",
    "GAN",
    "GANConfig",
    "GatedPixelCNN",
    "GatedPixelCNNConfig",
    "IWAE",
    "IWAEConfig",
    "Pix2Pix",
    "Pix2PixConfig",
    "PixelCNN",
    "PixelCNNConfig",
    "PixelCNNPlusPlus",
    "PixelCNNPlusPlusConfig",
    "PixelRNN",
    "PixelRNNConfig",
    "PixelSNAIL",
    "PixelSNAILConfig",
    "ProjectionGAN",
    "ProjectionGANConfig",
    "R3GAN",
    "R3GANConfig",
    "SequenceConfig",
    "SequenceModel",
    "SNGAN",
    "SNGANConfig",
    "VAE",
    "VAEConfig",
    "VQVAE",
    "VQVAEConfig",
    "WaveNet",
    "WaveNetConfig",
    "WGANGP",
    "WGANGPConfig",
]
