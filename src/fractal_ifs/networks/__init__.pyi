from .convnet import ConvNet as ConvNet
from .convnet import multiplications as multiplications
from .mlp import MLP as MLP
from .transformer import Transformer as Transformer
from .varied import ResMLP as ResMLP
from .varied import VariedMLP as VariedMLP
