from tests.fuzz.images import campaign


def test_damaged_images_are_read_or_refused_by_name():
    counts, broken = campaign(360, seed=0)
    assert not broken, "\n".join(broken)
    assert counts["read"] > 20 and counts["refused"] > 100
