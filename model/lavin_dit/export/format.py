"""What a bundle is made of: the names that its writer and its torch-free reader share. Needs the standard library only."""

BUNDLE_FORMAT = 1

VAE_ENCODER, DIT_VELOCITY, VAE_DECODER = "vae_encoder", "dit_velocity", "vae_decoder"
GRAPHS = (VAE_ENCODER, DIT_VELOCITY, VAE_DECODER)

FACTS_FILE = "bundle.json"
TABLE_FILE = "modulation.npz"
CARD_FILE = "model_card.md"
CONTEXTS_FOLDER = "contexts"


def graph_file(name: str) -> str:
    """The file of a graph."""
    return f"{name}.onnx"


def context_file(task: str) -> str:
    """The file with a task's default context pairs, relative to the bundle."""
    return f"{CONTEXTS_FOLDER}/{task}.npz"
