import os

import pytest

from llmproxy.control.file_watch import FileWatch


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "llmproxy.yaml"
    path.write_text("pools: {}")
    return path


def test_an_untouched_file_never_changes(path):
    watch = FileWatch([path])
    assert [watch.look() for _ in range(4)] == [False] * 4


def test_a_written_file_counts_at_the_second_equal_look_and_once(path):
    watch = FileWatch([path])
    path.write_text("pools: {a: 1}")
    assert [watch.look() for _ in range(4)] == [False, True, False, False]


def test_a_half_written_file_is_not_taken(path):
    watch = FileWatch([path])
    path.write_text("pools:")
    assert watch.look() is False
    path.write_text("pools: {a: 1}")
    assert watch.look() is False
    assert watch.look() is True


def test_same_size_and_time_but_other_content_is_seen_while_settling(path):
    watch = FileWatch([path])
    path.write_text("aaaa")
    stamp = path.stat()
    assert watch.look() is False
    path.write_text("bbbb")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert watch.look() is False, "not the content of the first look"
    assert watch.look() is True


def test_a_touched_file_with_the_same_content_is_no_change(path):
    watch = FileWatch([path])
    os.utime(path, ns=(1, 1))
    assert [watch.look() for _ in range(3)] == [False] * 3


def test_a_change_taken_back_is_no_change(path):
    watch = FileWatch([path])
    before = path.read_text()
    path.write_text("other")
    assert watch.look() is False
    path.write_text(before)
    assert [watch.look() for _ in range(3)] == [False] * 3


def test_an_editor_that_renames_is_followed(path, tmp_path):
    watch = FileWatch([path])
    for text in ("first", "second"):
        path.unlink()
        assert watch.look() is False, "gone for a moment is no change"
        draft = tmp_path / "draft"
        draft.write_text(text)
        draft.rename(path)
        assert [watch.look() for _ in range(3)] == [False, True, False]


def test_a_kubernetes_config_map_is_followed(tmp_path):
    def publish(name, text):
        (tmp_path / name).mkdir()
        (tmp_path / name / "llmproxy.yaml").write_text(text)
        (tmp_path / "..data.new").symlink_to(name)
        (tmp_path / "..data.new").rename(tmp_path / "..data")

    publish("v1", "one")
    path = tmp_path / "llmproxy.yaml"
    path.symlink_to("..data/llmproxy.yaml")
    watch = FileWatch([path])
    publish("v2", "two")
    assert [watch.look() for _ in range(3)] == [False, True, False]


def test_any_of_several_files_counts(path, tmp_path):
    key = tmp_path / "key"
    key.write_text("secret")
    watch = FileWatch([path, key])
    key.write_text("newer secret")
    assert [watch.look() for _ in range(3)] == [False, True, False]


def test_a_file_that_was_missing_at_first_counts_when_it_comes(tmp_path):
    path = tmp_path / "late.yaml"
    watch = FileWatch([path])
    assert watch.look() is False
    path.write_text("here")
    assert [watch.look() for _ in range(3)] == [False, True, False]


# -- what is read ------------------------------------------------------------------------------------------------------


def read(watch, *paths, then=lambda: None):
    with watch.reading() as about_to_read:
        for path in paths:
            about_to_read(path)
        then()


def test_what_was_read_is_what_is_watched(path, tmp_path):
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    for each in (old, new):
        each.write_text("secret")
    watch = FileWatch()
    read(watch, path, old)
    read(watch, path, new)
    old.write_text("nobody's any more")
    assert [watch.look() for _ in range(3)] == [False] * 3
    new.write_text("newer secret")
    assert [watch.look() for _ in range(3)] == [False, True, False]
    path.write_text("pools: {a: 1}")
    assert [watch.look() for _ in range(3)] == [False, True, False]


def test_a_change_while_it_is_read_is_seen(path):
    watch = FileWatch()
    read(watch, path, then=lambda: path.write_text("changed"))
    assert [watch.look() for _ in range(3)] == [False, True, False]


def test_reading_one_file_twice_takes_the_first_sight_of_it(path):
    watch = FileWatch()
    with watch.reading() as about_to_read:
        about_to_read(path)
        path.write_text("changed")
        about_to_read(path)
    assert [watch.look() for _ in range(3)] == [False, True, False]


def test_what_was_read_again_for_another_reason_is_no_change_any_more(path):
    watch = FileWatch([path])
    path.write_text("changed")
    assert watch.look() is False
    read(watch, path)
    assert [watch.look() for _ in range(3)] == [False] * 3


def test_after_a_reading_that_failed_its_files_and_those_before_are_watched(path, tmp_path):
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    for each in (cert, key):
        each.write_text("one")
    watch = FileWatch()
    read(watch, path, cert)

    def fail():
        raise ValueError("no pair")

    with pytest.raises(ValueError, match="no pair"):
        read(watch, path, key, then=fail)
    assert [watch.look() for _ in range(3)] == [False] * 3
    for each in (cert, key):
        each.write_text("two")
        assert [watch.look() for _ in range(3)] == [False, True, False], each


def test_a_file_that_is_missing_hides_no_change_of_another(path, tmp_path):
    key = tmp_path / "key"
    key.write_text("secret")
    watch = FileWatch([path, key])
    key.unlink()
    assert [watch.look() for _ in range(3)] == [False] * 3
    path.write_text("pools: {a: 1}")
    assert [watch.look() for _ in range(3)] == [False, True, False]
    key.write_text("secret")
    assert [watch.look() for _ in range(3)] == [False] * 3


def test_what_is_no_file_is_not_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    watch = FileWatch()
    read(watch, pipe, tmp_path, tmp_path / "a\0b")
    assert [watch.look() for _ in range(3)] == [False] * 3
