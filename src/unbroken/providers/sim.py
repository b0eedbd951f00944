"""The simulator as a provider: no key, no network, answers that are plainly simulated."""

from unbroken.providers.base import BearerKey, InProcess, Prefill, Provider
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport
from unbroken.wire.openai_chat.dialect import CODEC

PROVIDER = Provider(
    name="sim",
    base_url="http://simulator.invalid/v1",
    path="/chat/completions",
    auth=BearerKey("", required=False),
    codec=CODEC,
    prefill=Prefill(),
    in_process=InProcess(
        sync=lambda: SimulatorTransport(real_time=True),
        aio=lambda: AsyncSimulatorTransport(real_time=True),
    ),
)
