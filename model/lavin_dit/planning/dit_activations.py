"""What the J-DiT keeps of a forward pass for its backward pass, tensor by tensor. Never imports torch.

The lists follow dit/blocks.py line by line; tests hold them against what torch's allocator gives out.
"""

from dataclasses import dataclass
from typing import Literal

from lavin_dit.presets import PATCH_DIM, PATCH_SIZE, SPATIAL_FACTOR, DitShape, latent_frames

FLOAT32, BFLOAT16 = 4, 2
NUM_LOSS_TENSORS = 6
"""Tensors of the answer's size around the loss: noisy answer, both velocities, their difference and its two errors."""
NORM_NUMBERS = 3 * FLOAT32
"""Bytes a token of what the three norms of half a block keep beside their inputs."""
MODULATION_WIDTHS = 18
"""Widths a sample that the modulations of a block keep: activations 2, gates 4, the table's row 8, scales 4."""
ZERO_FRAMES = 1
"""What a dropped prompt shows before its query."""


@dataclass(frozen=True)
class Arithmetic:
    """What decides which tensors a network keeps, and how wide they are."""

    precision: Literal["float32", "bfloat16"]
    on_gpu: bool

    @property
    def narrow(self) -> int:
        """Bytes of what a matrix product takes and gives."""
        return BFLOAT16 if self.precision == "bfloat16" else FLOAT32

    @property
    def fuses_attention(self) -> bool:
        """Whether attention keeps no probabilities: on GPUs torch fuses grouped queries in half precision alone."""
        return not self.on_gpu or self.precision == "bfloat16"

    @property
    def widens_norms(self) -> bool:
        """Whether a norm of something narrow is wide: autocast has norms in float32 on GPUs alone."""
        return self.on_gpu

    @property
    def normed(self) -> int:
        """Bytes of what a norm of something narrow takes and gives."""
        return FLOAT32 if self.widens_norms else self.narrow

    @property
    def fuses_weighted_norms(self) -> bool:
        """Whether an RMS norm with weights keeps its input alone, and not what it normed as well."""
        return self.on_gpu

    def casts(self, readers: int) -> int:
        """Copies of what several products read: each makes its own where it needs another width."""
        return readers if self.precision == "bfloat16" else 1


@dataclass(frozen=True)
class Episodes:
    """A micro-batch of episodes. Units: tokens of one sample."""

    samples: int
    prompt: int
    answer: int

    @classmethod
    def of_pairs(cls, samples: int, *, num_pairs: int, resolution: int, frames: int = 1) -> "Episodes":
        """Pictures, or clips of some frames, at `resolution` pixels a side: all show `num_pairs` pairs and a query."""
        answer = latent_frames(frames) * tokens_of_frame(resolution)
        return cls(samples, (2 * num_pairs + 1) * answer, answer)

    @classmethod
    def dropped(cls, samples: int, *, resolution: int, frames: int = 1) -> "Episodes":
        """The same without their prompts, of which a frame of zeros and the query are left."""
        answer = latent_frames(frames) * tokens_of_frame(resolution)
        return cls(samples, ZERO_FRAMES * tokens_of_frame(resolution) + answer, answer)

    @property
    def tokens(self) -> int:
        return self.prompt + self.answer


@dataclass(frozen=True)
class Learning:
    """What of a block's linears is learnt: nothing where they are frozen, or low-rank updates beside them."""

    linears: bool
    """Whether the backward pass reads what they took, for themselves or for their updates."""
    rank: int
    """Of the updates; 0 where there are none."""


@dataclass(frozen=True)
class BlockMemory:
    """What one block holds. Units: bytes a micro-batch."""

    inputs: int
    """What every kind of checkpointing keeps."""
    products: int
    """Results of matrix products and of attention, which selective checkpointing keeps beside them."""
    kept: int
    """All that the backward pass reads, inputs included."""
    backward: int
    """What the worst moment of its backward pass holds beyond that: gradients made by then, less what was given back."""

    def kept_with(self, checkpointing: str) -> int:
        """What stays until the backward pass comes to this block."""
        return {"none": self.kept, "selective": self.inputs + self.products, "full": self.inputs}[checkpointing]


WHOLE = Learning(linears=True, rank=0)


def block_memory(shape: DitShape, episodes: Episodes, arithmetic: Arithmetic, *, is_last: bool, learning: Learning = WHOLE) -> BlockMemory:
    """One block; the last gives its answer alone."""
    block = _Block(shape, episodes, arithmetic, is_last, learning)
    return BlockMemory(block.inputs(), block.products(), block.kept(), block.backward())


@dataclass(frozen=True)
class _Block:
    """The tensors of a block. Bytes a token unless they say otherwise; `wide` is the residual stream's, `narrow` a product's."""

    shape: DitShape
    episodes: Episodes
    arithmetic: Arithmetic
    is_last: bool
    learning: Learning

    @property
    def writers(self) -> int:
        """Tokens of a sample that the block changes; the others only listen: keys and values are made of them."""
        return self.episodes.answer if self.is_last else self.episodes.tokens

    @property
    def wide(self) -> int:
        return self.shape.dim * FLOAT32

    @property
    def narrow(self) -> int:
        return self.shape.dim * self.arithmetic.narrow

    @property
    def hidden(self) -> int:
        return self.shape.hidden_dim * self.arithmetic.narrow

    @property
    def key(self) -> int:
        return self.shape.num_kv_heads * self.shape.head_dim

    def inputs(self) -> int:
        return self.episodes.samples * (self.episodes.tokens * self.wide + MODULATION_WIDTHS * self.wide)

    def products(self) -> int:
        # An update's product comes beside that of the weights.
        each = 2 if self.learning.rank else 1
        queries_out_down_attended = self.writers * (3 * each + 1) * self.narrow
        keys_values = 2 * self.episodes.tokens * each * self.key * self.arithmetic.narrow
        hidden = self.writers * 2 * each * self.hidden
        return self.episodes.samples * (queries_out_down_attended + keys_values + hidden + self._narrowed())

    def kept(self) -> int:
        listeners = self.episodes.tokens - self.writers
        tokens = self.writers * (self._attention_half() + self._feed_forward_half()) + listeners * self._listening()
        return self.episodes.samples * (tokens + self._attention() + self._narrowed() + MODULATION_WIDTHS * self.wide)

    def backward(self) -> int:
        return self.episodes.samples * max(self._at_answer(), self._at_prompt(), self._at_attention())

    def _narrowed(self) -> int:
        """What low-rank updates read after their first half, of keys and values and of five linears more. Bytes a sample."""
        return (2 * self.episodes.tokens + 5 * self.writers) * self.learning.rank * self.arithmetic.narrow

    def _read(self, readers: int) -> int:
        """Copies of what several linears take."""
        return self.arithmetic.casts(readers) * self.narrow if self.learning.linears else 0

    def _norm_copies(self) -> int:
        # What was normed is read again for the norm's own weights alone.
        has_own = self.learning.linears and not self.learning.rank
        return 1 if self.arithmetic.fuses_weighted_norms or not has_own else 2

    def _attention_half(self) -> int:
        # In: the input, its norm, its copies for three products. Queries and keys: what is normed. Out: the branch and its norm.
        entering = 2 * self.wide + self._read(3)
        normed = self._norm_copies() * (self.wide + self.key * FLOAT32)
        is_split = self.episodes.samples > 1 and not self.is_last
        return entering + normed + (self.narrow if is_split else 0) + self._branch() + NORM_NUMBERS

    def _feed_forward_half(self) -> int:
        # The input, its norm, its copies for two products; gate, its activation, up, their product; the branch and its norm.
        hidden = (4 if self.learning.linears else 3) * self.hidden
        return 2 * self.wide + self._read(2) + hidden + self._branch() + NORM_NUMBERS

    def _branch(self) -> int:
        return self.wide + self.shape.dim * self.arithmetic.normed

    def _listening(self) -> int:
        return 2 * self.wide + self._read(2) + self._norm_copies() * self.key * FLOAT32 + NORM_NUMBERS

    def _attention(self) -> int:
        """Bytes a sample."""
        tokens = self.episodes.tokens
        if self.arithmetic.fuses_attention:
            statistics = self.writers * self.shape.num_heads * FLOAT32
            return 2 * self.writers * self.narrow + 2 * tokens * self.key * self.arithmetic.narrow + statistics
        return self._probabilities() + (self.writers + 2 * tokens) * self.wide

    def _probabilities(self) -> int:
        return self.shape.num_heads * self.writers * self.episodes.tokens * FLOAT32

    # The moments of the backward pass at which most is alive. Bytes a sample.

    def _at_answer(self) -> int:
        """The answer's feed-forward: gradients of its three hidden tensors, one of which was given back, and of every output."""
        listeners = self.episodes.tokens - self.episodes.answer
        return self.episodes.answer * (2 * self.hidden - self.wide) + (0 if self.is_last else listeners * self.wide)

    def _at_prompt(self) -> int:
        """The prompt's feed-forward, when the answer's has been given back."""
        if self.is_last:
            return 0
        answer = self.episodes.answer * (self.wide - self._feed_forward_half())
        return self.episodes.prompt * (2 * self.hidden - self.wide) + answer

    def _at_attention(self) -> int:
        """Attention, when both feed-forwards have been given back: gradients of its probabilities where it is not fused."""
        gradients = self.writers * 3 * self.wide + self.episodes.tokens * 2 * self.key * FLOAT32
        probabilities = 0 if self.arithmetic.fuses_attention else 2 * self._probabilities()
        return gradients + probabilities - self.writers * self._feed_forward_half()


def tokens_of_frame(resolution: int) -> int:
    """Tokens of a latent frame."""
    return (resolution // (SPATIAL_FACTOR * PATCH_SIZE)) ** 2


def embedders_memory(shape: DitShape, episodes: Episodes, arithmetic: Arithmetic) -> int:
    """What the layers before the blocks keep: patches, and what is normed. Units: bytes."""
    return episodes.samples * episodes.tokens * (PATCH_DIM * arithmetic.narrow + shape.dim * FLOAT32)


def losses_memory(shape: DitShape, episodes: Episodes, arithmetic: Arithmetic) -> int:
    """What the last layer and the losses keep until the backward pass has come to the blocks. Units: bytes."""
    layer = 2 * shape.dim * FLOAT32 + shape.dim * arithmetic.narrow
    return episodes.samples * episodes.answer * (layer + NUM_LOSS_TENSORS * PATCH_DIM * FLOAT32)


def batch_memory(episodes: Episodes) -> int:
    """Latents and noise of a batch. Units: bytes."""
    return episodes.samples * (episodes.tokens + episodes.answer) * PATCH_DIM * FLOAT32
