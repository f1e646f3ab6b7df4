// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @notice What an owner signs: an order to swap one asset for another, on one chain or across two.
/// @dev Amounts are in the token's smallest unit, times in Unix seconds (inclusive on both ends), assets are ERC-20
/// addresses left-padded to 32 bytes so that the type can later name assets of chains with longer addresses.
/// @param owner Account that signs and whose tokens are sold: an EOA or an ERC-1271 wallet.
/// @param account Reserved for sub-accounts. Must be zero.
/// @param receiver Account that is paid the bought tokens, on the buy chain.
/// @param sellChain Chain id where the sold tokens are and where the order settles.
/// @param sellAsset Token sold.
/// @param buyChain Chain id where the bought tokens are paid.
/// @param buyAsset Token bought.
/// @param sellAmount exactIn: total sold. exactOut: most that may be sold for the whole.
/// @param buyAmount exactIn: least that must be bought for the whole, net of fees. exactOut: total bought.
/// @param kind 0 = exactIn, 1 = exactOut. Signed as the word, so that a wallet shows it to the owner.
/// @param partialFill Whether the order may be filled in parts.
/// @param nonce Makes otherwise equal orders distinct. Any value, no sequence is enforced.
/// @param validFrom First second at which the order may settle.
/// @param validUntil Last second at which the order may settle.
/// @param fillDeadline Cross-chain only: last second at which the receiver may be paid on the buy chain.
/// @param refundAfter Cross-chain only: from the second after this one, an unclaimed escrow returns to the owner.
/// @param maxFee Cap of the fee for the whole order, in the bought token.
/// @param minHealth Reserved for margin accounts. Must be zero.
/// @param extension Reserved hash of further terms. Must be zero.
struct Swap {
    address owner;
    bytes32 account;
    address receiver;
    uint256 sellChain;
    bytes32 sellAsset;
    uint256 buyChain;
    bytes32 buyAsset;
    uint256 sellAmount;
    uint256 buyAmount;
    uint8 kind;
    bool partialFill;
    uint256 nonce;
    uint64 validFrom;
    uint64 validUntil;
    uint64 fillDeadline;
    uint64 refundAfter;
    uint256 maxFee;
    uint256 minHealth;
    bytes32 extension;
}

/// @title SwapLib
/// @notice EIP-712 hashing of a {Swap} and the arithmetic of its partial fills.
/// @dev Every rounding goes against the solver. A caller must have checked that a fill does not exceed the total it is
/// a part of; under that condition no multiplication or division here can overflow or divide by zero.
library SwapLib {
    /// @notice Kind of a swap that sells an exact amount.
    uint8 internal constant EXACT_IN = 0;

    /// @notice Kind of a swap that buys an exact amount.
    uint8 internal constant EXACT_OUT = 1;

    /// @notice EIP-712 type hash of {Swap}. The kind is a string in the signed type.
    bytes32 internal constant TYPEHASH = keccak256(
        "Swap(address owner,bytes32 account,address receiver,uint256 sellChain,bytes32 sellAsset,uint256 buyChain,"
        "bytes32 buyAsset,uint256 sellAmount,uint256 buyAmount,string kind,bool partialFill,uint256 nonce,"
        "uint64 validFrom,uint64 validUntil,uint64 fillDeadline,uint64 refundAfter,uint256 maxFee,uint256 minHealth,"
        "bytes32 extension)"
    );

    bytes32 private constant EXACT_IN_HASH = keccak256("exactIn");
    bytes32 private constant EXACT_OUT_HASH = keccak256("exactOut");

    /// @notice The kind is neither exactIn (0) nor exactOut (1).
    error UnknownKind(uint8 kind);

    /// @notice EIP-712 struct hash of `swap`.
    /// @param swap The order.
    /// @return The struct hash, without domain.
    function structHash(Swap calldata swap) internal pure returns (bytes32) {
        // Two encodings joined: one of all twenty words would not fit the EVM's reachable stack.
        return keccak256(
            bytes.concat(
                abi.encode(
                    TYPEHASH,
                    swap.owner,
                    swap.account,
                    swap.receiver,
                    swap.sellChain,
                    swap.sellAsset,
                    swap.buyChain,
                    swap.buyAsset,
                    swap.sellAmount,
                    swap.buyAmount
                ),
                abi.encode(
                    kindHash(swap.kind),
                    swap.partialFill,
                    swap.nonce,
                    swap.validFrom,
                    swap.validUntil,
                    swap.fillDeadline,
                    swap.refundAfter,
                    swap.maxFee,
                    swap.minHealth,
                    swap.extension
                )
            )
        );
    }

    /// @notice Hash of the word a wallet shows for `kind`.
    /// @param kind 0 or 1; anything else reverts.
    /// @return keccak256 of "exactIn" or "exactOut".
    function kindHash(uint8 kind) internal pure returns (bytes32) {
        if (kind == EXACT_IN) return EXACT_IN_HASH;
        if (kind == EXACT_OUT) return EXACT_OUT_HASH;
        revert UnknownKind(kind);
    }

    /// @notice Quantity by which fills are counted: the sold total of exactIn, the bought total of exactOut.
    /// @param swap The order.
    /// @return The total in that token's smallest unit.
    function total(Swap calldata swap) internal pure returns (uint256) {
        return swap.kind == EXACT_IN ? swap.sellAmount : swap.buyAmount;
    }

    /// @notice Least that selling `sellFill` of an exactIn swap must buy, rounded up.
    /// @param swap The order.
    /// @param sellFill Part sold, at most `swap.sellAmount`.
    /// @return Amount in the bought token's smallest unit.
    function minimumBuy(Swap calldata swap, uint256 sellFill) internal pure returns (uint256) {
        return Math.mulDiv(sellFill, swap.buyAmount, swap.sellAmount, Math.Rounding.Ceil);
    }

    /// @notice Most that buying `buyFill` of an exactOut swap may sell, rounded down.
    /// @param swap The order.
    /// @param buyFill Part bought, at most `swap.buyAmount`.
    /// @return Amount in the sold token's smallest unit.
    function maximumSell(Swap calldata swap, uint256 buyFill) internal pure returns (uint256) {
        return Math.mulDiv(buyFill, swap.sellAmount, swap.buyAmount, Math.Rounding.Floor);
    }

    /// @notice Share of the fee cap that belongs to a fill, rounded down.
    /// @param swap The order.
    /// @param fill Part filled, in the quantity of {total} and at most that.
    /// @return Amount in the bought token's smallest unit.
    function feeCap(Swap calldata swap, uint256 fill) internal pure returns (uint256) {
        return Math.mulDiv(swap.maxFee, fill, total(swap), Math.Rounding.Floor);
    }
}
