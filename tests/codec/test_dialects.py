from zrs_core.codec.dialects import DIALECTS, ZRS_2_0, ZRS_2_1


def test_each_protocol_word_leads_to_its_dialect():
    assert DIALECTS == {"zrs2.0": ZRS_2_0, "zrs2.1": ZRS_2_1}


def test_the_newer_dialect_alone_has_blobs():
    assert not ZRS_2_0.blobs
    assert ZRS_2_1.blobs
