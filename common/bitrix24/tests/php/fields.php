<?php
// What PHP sees in a form: each field with its full name, as number of fields, then length and bytes of name and value.
// Started by php.rs: bodies come in by standard input, each with its length before it; or as posts to `php -S`.

function fields(string $name, array $list, array &$found): void
{
    foreach ($list as $key => $value) {
        $full = $name === '' ? (string) $key : "{$name}[$key]";
        if (is_array($value)) {
            fields($full, $value, $found);
        } else {
            $found[] = pack('V', strlen($full)) . $full . pack('V', strlen($value)) . $value;
        }
    }
}

function answer(array $form): string
{
    $found = [];
    fields('', $form, $found);
    return pack('V', count($found)) . implode('', $found);
}

function take(int $length): string
{
    $taken = '';
    while (strlen($taken) < $length) {
        $some = fread(STDIN, $length - strlen($taken));
        if ($some === '' || $some === false) {
            exit(0);
        }
        $taken .= $some;
    }
    return $taken;
}

if (PHP_SAPI === 'cli-server') {
    echo answer($_POST);
    return;
}
while (true) {
    $body = take(unpack('V', take(4))[1]);
    // As a post arrives: parse_str takes its argument for a C string, the reading of a post does not.
    parse_str(str_replace("\0", '%00', $body), $form);
    fwrite(STDOUT, answer($form));
}
