from rater.catalog import CheckedFile, DeckDefaults, check_rates
from rater.resources import sample_rate_deck

PUBLIC = "Destination Name,Destination Type,Country,Prefix,Price / min"
OWN = "prefix,destination,country,rate_per_minute,effective_from,increment_s,initial_increment_s"


def check(*lines: str, defaults: DeckDefaults | None = None) -> CheckedFile:
    return check_rates(lines, defaults or DeckDefaults())


def places(loaded: CheckedFile) -> list[tuple[int, int]]:
    return [(fault.line, fault.column) for fault in loaded.faults]


def test_the_sample_deck_has_no_faults() -> None:
    with sample_rate_deck().open(newline="") as lines:
        loaded = check_rates(lines, DeckDefaults())
    assert not loaded.faults
    assert len(loaded.rows) == 6592


def test_what_the_public_deck_lacks_comes_from_the_defaults() -> None:
    defaults = DeckDefaults("gold", "outbound", "EUR", "2026-01-01T00:00:00Z", "0.05", 30, 6)
    key, row = check(PUBLIC, "Albania,landline,AL,355,0.241", defaults=defaults).rows[0]
    assert row == {
        "rate_id": "gold:outbound:EUR:355:2026-01-01T00:00:00Z",
        "rate_card": "gold",
        "service": "outbound",
        "currency": "EUR",
        "effective_from": "2026-01-01T00:00:00Z",
        "connection_fee": "0.05",
        "initial_increment_s": 30,
        "increment_s": 6,
        "destination": "Albania",
        "number_type": "landline",
        "country": "AL",
        "prefix": "355",
        "rate_per_minute": "0.241",
    }
    assert key == row["rate_id"]


def test_loading_a_deck_again_gives_the_same_ids() -> None:
    lines = (PUBLIC, "Albania,landline,AL,355,0.241", "Andorra,landline,AD,376,0.047")
    assert check(*lines).rows == check(*lines).rows


def test_every_fault_in_a_row_is_listed_with_its_column() -> None:
    loaded = check(PUBLIC, "Albania,landline,Albania,+355,0.2e1")
    assert places(loaded) == [(2, 3), (2, 4), (2, 5)]


def test_a_fault_does_not_hide_faults_in_later_rows() -> None:
    loaded = check(PUBLIC, "Albania,landline,AL,x,0.2", "Andorra,landline,AD,376,0.047", "Angola,mobile,AO,2449,-1")
    assert places(loaded) == [(2, 4), (4, 5)]


def test_an_empty_required_cell_is_a_fault() -> None:
    assert places(check(PUBLIC, "Albania,landline,AL,,0.2")) == [(2, 4)]


def test_a_fault_in_one_increment_is_not_blamed_on_the_other() -> None:
    loaded = check(OWN, "355,Albania,AL,0.2,2026-01-01T00:00:00Z,60,-1")
    assert places(loaded) == [(2, 7)]


def test_two_equal_rows_are_a_fault_by_rule_8() -> None:
    loaded = check(PUBLIC, "Albania,landline,AL,355,0.2", "Albania,mobile,AL,355,0.3")
    assert [str(fault) for fault in loaded.faults] == ["line 3, column 4: the same prefix and validity as line 2 (rule 8)"]


def test_equal_instants_in_different_zones_are_equal_rows() -> None:
    loaded = check(OWN, "355,A,AL,0.2,2026-01-01T00:00:00Z,60,60", "355,B,AL,0.2,2026-01-01T01:00:00+01:00,60,60")
    assert places(loaded) == [(3, 1)]


def test_the_same_prefix_may_be_valid_from_two_dates() -> None:
    assert not check(OWN, "355,A,AL,0.2,2026-01-01T00:00:00Z,60,60", "355,A,AL,0.2,2026-02-01T00:00:00Z,60,60").faults


def test_a_rate_id_that_appears_twice_is_a_fault() -> None:
    header = "rate_id,prefix,destination,country,rate_per_minute"
    assert places(check(header, "a,355,Albania,AL,0.2", "a,376,Andorra,AD,0.3")) == [(3, 1)]


def test_a_validity_that_ends_before_it_begins_is_a_fault() -> None:
    header = "prefix,destination,country,rate_per_minute,effective_from,effective_to"
    assert places(check(header, "355,A,AL,0.2,2026-02-01T00:00:00Z,2026-01-01T00:00:00Z")) == [(2, 6)]


def test_each_fault_in_the_header_is_listed_with_its_column() -> None:
    loaded = check("Prefix,Prefix,Colour", "1,1,red")
    assert places(loaded) == [(1, 2), (1, 3), (1, 0), (1, 0), (1, 0)]


def test_a_row_with_too_many_columns_is_a_fault() -> None:
    assert places(check(PUBLIC, "Bonaire, Sint Eustatius,landline,BQ,599,0.2")) == [(2, 0)]


def test_a_wrong_default_is_listed_once_and_not_for_every_row() -> None:
    loaded = check(PUBLIC, "Albania,landline,AL,355,0.2", "B,landline,AL,356,0.2", defaults=DeckDefaults(currency="ABC"))
    assert [str(fault) for fault in loaded.faults] == ["default currency: 'ABC': ABC is not in ISO 4217"]


def test_an_empty_file_is_a_fault() -> None:
    assert check().faults
    assert check(PUBLIC).faults


def test_an_open_quote_is_a_fault_and_not_a_crash() -> None:
    assert check(PUBLIC, 'Albania,"landline,AL,355,0.2').faults
