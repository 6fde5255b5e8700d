"""Words and pictures interleaved: a word sees the words so far, and of the pictures only the last one.

Alayrac et al., "Flamingo: a Visual Language Model for Few-Shot Learning", 2022,
https://arxiv.org/abs/2204.14198, section 3.1.3.
Reach for it for documents, chats and few-shot prompts with several pictures in one sample. It works with
other numbers of pictures than in training, since a word only ever sees one.

"Of the same picture" is a word of one's own: `register_mask` takes a function of two tokens. The tokens'
`entity` holds the number of the last picture so far, -1 before the first.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

same_picture = A.register_mask(
    "same_picture", lambda pairs: (pairs.query.entity == pairs.key.entity) & (pairs.query.entity >= 0)
)
EARLIER_WORDS = A.route({"text": ["text"], "*": []}) & A.causal
LAST_PICTURE = A.route({"text": ["image"], "image": ["image"], "*": []}) & same_picture
PROGRAM = A.Program(mask=EARLIER_WORDS | LAST_PICTURE)
TEXT = ["Two", "pictures", ":", "<image>", "a", "cat", "asleep", "<image>", "and", "a", "dog"]


def document(patches: int = 2) -> Tokens:
    """The text with pictures of some patches; positions count words, and patches within a picture."""
    modality, position, entity, picture, words = [], [], [], -1, 0
    for piece in TEXT:
        picture += piece == "<image>"
        count = patches if piece == "<image>" else 1
        modality += [int(piece == "<image>")] * count
        position += range(patches) if piece == "<image>" else [words]
        entity += [picture] * count
        words += piece != "<image>"
    kinds, indices, entities = (torch.tensor(column) for column in (modality, position, entity))
    values, offsets = torch.randn(len(kinds), 16), torch.tensor([0, len(kinds)])
    return Tokens(values, offsets, kinds, indices, ("text", "image"), entity=entities)


def main() -> dict[str, list[int]]:
    """Returns the pictures that each word saw."""
    torch.manual_seed(0)
    tokens = document()
    layer = A.Attention(PROGRAM, dim=16, heads=2)
    show.tell(layer, tokens)
    weight_QK = show.weights(layer, tokens).mean(0)
    names = [name for piece in TEXT for name in ([piece] * 2 if piece == "<image>" else [piece])]
    print("\nqueries down, keys across in the same order")
    show.shades(weight_QK, names)
    patch_K = tokens.modality == 1
    seen = {
        f"{row} {name}": sorted(set(tokens.entity[(weight_QK[row] > 0) & patch_K].tolist()))
        for row, name in enumerate(names)
        if name != "<image>"
    }
    print("pictures seen by each word:", seen)
    return seen


if __name__ == "__main__":
    show.run(main, PROGRAM, tokens=document())
