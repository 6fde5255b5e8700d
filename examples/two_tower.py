"""mmattn's item tower in a two-tower script of your own: plain PyTorch, your loop, your users, your loss.

    python examples/two_tower.py

Films have a title and up to three patches of a picture; some have no picture. The last twelve are new.
"""

import torch
from torch import Tensor, nn

from mmattn.config import FusionConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.model.build import build_item_tower
from mmattn.model.item_tower import ItemTower
from mmattn.types import Tokens

FILMS, NEW, USERS, TOPICS = 60, 12, 30, ("war", "love", "space")  # film n has topic n % 3, user u likes u % 3
TITLES = [f"A story of {TOPICS[n % 3]}, part {n}" for n in range(FILMS)]
PICTURES = [
    torch.full((n % 4, 16), float(n % 3)) for n in range(FILMS)
]  # any encoder's tokens, [patches, 16]


def item_tower() -> ItemTower:
    sources = {"title": TinyText(dim=16, modality="title"), "picture": 16}  # one learns along, one was stored
    return build_item_tower(sources, FusionConfig(dim=32), dim=24)


def main(steps: int = 60) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(0)
    items = ModelInputs({"picture": Tokens.from_sequences(PICTURES, "picture")}, {"title": TITLES})
    tower, users = item_tower(), nn.Embedding(USERS, 24)
    met_users = torch.arange(USERS).repeat_interleave(8)
    met_films = met_users % 3 + 3 * torch.randint((FILMS - NEW) // 3, met_users.shape)
    optimizer = torch.optim.Adam([*users.parameters(), *tower.parameters()], lr=0.01)
    for _ in range(steps):
        batch = torch.randint(len(met_users), (64,))
        scores = users(met_users[batch]) @ tower(items, met_films[batch]).T
        same = (met_films[batch][:, None] == met_films[batch]).float()  # a film drawn twice is right twice
        loss = nn.functional.cross_entropy(scores, same / same.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    result = (users.weight @ tower.vectors(items)[-NEW:].T).argmax(1)  # the best of the films nobody met
    return (result % 3 == torch.arange(USERS) % 3).float().mean().item(), tower.state_dict()


if __name__ == "__main__":
    print(f"{main()[0]:.0%} of the users get a new film of their topic first (a third would by chance)")
