"""Recurrent policies: a perceptron, a gated recurrent cell, and a head that fits the action space."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from pgx.core.agent import Distribution, RecurrentState
from pgx.core.data import History, Observations
from pgx.core.defaults import DEFAULT
from pgx.core.schema import Count, Index, Positive, Validated
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.networks.heads import ContinuousHead, LogStd, policy_for
from pgx.networks.mlp import Activation, linear_layer, trunk


class GRUCell(nn.Module):
    """Gated recurrent unit; its state is its output h.

    r = σ(W_r x + b_r + U_r h), z = σ(W_z x + b_z + U_z h), n = tanh(W_n x + b_n + r ∘ U_n h)
    h' = (1 - z) ∘ n + z ∘ h

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    2014, section 2.3. There the reset gate multiplies h before U_n, here after it. This is torch.nn.GRU with its second
    biases at zero.

    Args:
        inputs: W, length of x.
        units: H, length of h.
        generator: random stream of the initial weights.
    """

    def __init__(self, inputs: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.size = units  # numbers of the state
        self.input = _stacked(3, inputs, units, generator)
        self.recurrent = _stacked(3, units, units, generator)
        self.bias = nn.Parameter(torch.zeros(3 * units))

    def drive(self, x: Tensor) -> Tensor:
        """Return the part of the gates that depends on inputs [B, W] alone, [B, 3H]; B may span many steps."""
        return nn.functional.linear(x, self.input, self.bias)

    def forward(self, drive: Tensor, state: Tensor) -> Tensor:
        """Return the state [S, H] after one step."""
        reset, update, new = drive.chunk(3, -1)
        from_reset, from_update, from_new = (state @ self.recurrent.T).chunk(3, -1)
        candidate = (new + (reset + from_reset).sigmoid() * from_new).tanh()
        z = (update + from_update).sigmoid()
        return (1 - z) * candidate + z * state

    def output(self, state: Tensor) -> Tensor:
        return state


class LSTMCell(nn.Module):
    """Long short-term memory; its state is (h, c), its output h.

    i, f, o = σ(W x + b + U h), each with its own W, b and U; g = tanh(W_g x + b_g + U_g h)
    c' = f ∘ c + i ∘ g, h' = o ∘ tanh(c')

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; the forget gate f is from Gers, Schmidhuber and
    Cummins, "Learning to forget: continual prediction with LSTM", 2000. This is torch.nn.LSTM with its second biases at
    zero.

    Args:
        inputs: W, length of x.
        units: H, length of h.
        forget_bias: initial b_f.
        generator: random stream of the initial weights.
    """

    def __init__(self, inputs: int, units: int, forget_bias: float, generator: torch.Generator) -> None:
        super().__init__()
        self.size = 2 * units  # numbers of the state
        self.input = _stacked(4, inputs, units, generator)
        self.recurrent = _stacked(4, units, units, generator)
        self.bias = nn.Parameter(torch.zeros(4 * units))
        with torch.no_grad():
            self.bias[units : 2 * units] = forget_bias

    def drive(self, x: Tensor) -> Tensor:
        """Return the part of the gates that depends on inputs [B, W] alone, [B, 4H]; B may span many steps."""
        return nn.functional.linear(x, self.input, self.bias)

    def forward(self, drive: Tensor, state: Tensor) -> Tensor:
        """Return the state [S, 2H] after one step."""
        h, c = state.chunk(2, -1)
        i, f, g, o = (drive + h @ self.recurrent.T).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * c.tanh(), c], -1)

    def output(self, state: Tensor) -> Tensor:
        return state.chunk(2, -1)[0]


def _stacked(gates: int, inputs: int, units: int, generator: torch.Generator) -> nn.Parameter:
    """Return the weights [gates * H, inputs] of several gates, one orthogonal matrix each."""
    return nn.Parameter(
        torch.cat([linear_layer(inputs, units, 1.0, generator).weight.detach() for _ in range(gates)])
    )


class RecurrentNetwork(nn.Module):
    """Policy pi(a_t | s_0, ..., s_t) = head(m_t), m_t = cell(encoder(s_t), m_{t-1}); m = 0 before an episode begins.

    Args:
        encoder: from features [B, ...] to [B, W].
        cell: from inputs [S, W] and its state to its next state.
        head: policy whose features are the outputs of the cell.
        recurrent_state: size of the state, and how rollouts are cut into sequences.
    """

    def __init__(
        self, encoder: nn.Module, cell: GRUCell | LSTMCell, head: nn.Module, recurrent_state: RecurrentState
    ) -> None:
        super().__init__()
        self.recurrent_state = recurrent_state
        self.encoder = encoder
        self.cell = cell
        self.head = head

    def forward(self, obs: Observations) -> Distribution:
        return self.advance(obs)[0]

    def advance(self, obs: Observations) -> tuple[Distribution, Tensor]:
        """Return the distributions, and the recurrent state [S, M] after the last step of each sequence."""
        history = obs.history
        if history is None:
            raise ValueError("a recurrent policy needs Observations.history; got None")
        states = self._unroll(history)
        output = self.cell.output(torch.stack(states)[history.step, history.sequence])
        distribution: Distribution = self.head(replace(obs, features=output))
        return distribution, states[-1]

    def _unroll(self, history: History) -> list[Tensor]:
        """Return the recurrent state [S, M] after each of the L steps; without gradients in burn-in steps."""
        encoded = self.encoder(history.features.flatten(0, 1))
        drive = self.cell.drive(encoded)
        drives = drive.reshape(*history.begins.shape, drive.shape[-1]).unbind()
        begins, burn_in = history.begins.unsqueeze(-1).unbind(), history.burn_in.unsqueeze(-1).unbind()
        state, states = history.recurrent_state, []
        for drive, begin, burns in zip(drives, begins, burn_in, strict=True):
            state = self.cell(drive, state.masked_fill(begin, 0.0))
            state = torch.where(burns, state.detach(), state)
            states.append(state)
        return states


@dataclass(frozen=True)
class GRUPolicy(Validated):
    """Recurrent policy: perceptron, GRU, and the distribution head that fits the action space.

    Continuous actions have one dimension.
    """

    config_file: ClassVar[str] = "policy/gru"

    hidden: list[Count] = DEFAULT  # widths of the layers before the cell; may be empty
    activation: Activation = DEFAULT  # between these layers
    hidden_gain: Positive = DEFAULT  # scale of their orthogonal matrices
    memory_units: Count = DEFAULT  # H, outputs of the cell; its matrices are orthogonal
    output_gain: Positive = DEFAULT  # scale of the last orthogonal matrix
    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions
    sequence_length: Count = DEFAULT  # steps of a training sequence; gradients reach no further back
    # steps before the sequence that recompute the recurrent state with the current parameters
    burn_in: Index = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with initial weights drawn from the generator."""
        encoder, width = trunk(obs, self.hidden, self.activation, self.hidden_gain, generator)
        cell = GRUCell(width, self.memory_units, generator)
        head = policy_for(
            action,
            lambda outputs: linear_layer(self.memory_units, outputs, self.output_gain, generator),
            self.log_std_init,
            self.continuous,
        )
        return RecurrentNetwork(
            encoder, cell, head, RecurrentState(cell.size, self.sequence_length, self.burn_in)
        )


@dataclass(frozen=True)
class LSTMPolicy(Validated):
    """Recurrent policy: perceptron, LSTM, and the distribution head that fits the action space.

    Fields as in `GRUPolicy`.
    """

    config_file: ClassVar[str] = "policy/lstm"

    hidden: list[Count] = DEFAULT
    activation: Activation = DEFAULT
    hidden_gain: Positive = DEFAULT
    memory_units: Count = DEFAULT
    forget_bias: float = DEFAULT  # initial bias of the forget gate; a large one keeps the cell state longer
    output_gain: Positive = DEFAULT
    log_std_init: LogStd = DEFAULT
    continuous: ContinuousHead = DEFAULT
    sequence_length: Count = DEFAULT
    burn_in: Index = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with initial weights drawn from the generator."""
        encoder, width = trunk(obs, self.hidden, self.activation, self.hidden_gain, generator)
        cell = LSTMCell(width, self.memory_units, self.forget_bias, generator)
        head = policy_for(
            action,
            lambda outputs: linear_layer(self.memory_units, outputs, self.output_gain, generator),
            self.log_std_init,
            self.continuous,
        )
        return RecurrentNetwork(
            encoder, cell, head, RecurrentState(cell.size, self.sequence_length, self.burn_in)
        )
